"""What a state table says beside its rows: the latest pass, and the version of each data table that counts.

A state table (`sources`, or the table of a stage on clips) holds a row for each unit that is done or failed. `sources`
has data tables beside it: `clips` and `thumbnails`. Every row carries `pass`, a number that is unique in its state
table and taken at the start of each run. These facts are kept as Delta transaction numbers, which survive compaction
and checkpoints.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from deltalake import DeltaTable

PASS = "clipmill:pass"  # the latest pass that began
DRIVER = "clipmill:driver"  # a number of the driver that began it: two may want the same pass
COMMIT = "clipmill:commit"  # the number of the latest commit, in every table that it wrote to
REDONE = "clipmill:redone"  # the latest commit of rows that supersede those of an earlier pass
PRUNED = "clipmill:pruned"  # the latest such commit whose superseded rows are deleted


class Owner(NamedTuple):
    """Which state table a table belongs to, and the column that names its units."""

    state: str
    key: str


def owner(table: DeltaTable) -> Owner | None:
    """The owner that a table's description names; None for a table that no ledger writes."""
    try:
        found = json.loads(table.metadata().description or "")
        return Owner(found["state"], found["key"])
    except (ValueError, KeyError, TypeError):
        return None


def describe(state: str, key: str) -> str:
    """The description that `owner` reads."""
    return json.dumps({"state": state, "key": key})


def number(table: DeltaTable, application: str) -> int:
    """A transaction number of a table; 0 where it has none."""
    return table.transaction_version(application) or 0


def latest_pass(state_table: DeltaTable) -> tuple[int, int]:
    """The latest pass that began, and its driver."""
    return number(state_table, PASS), number(state_table, DRIVER)


def version_of(data_table: str) -> str:
    """The application that notes, in a state table, the version of one of its data tables."""
    return f"clipmill:version:{data_table}"


def has_superseded(state_table: DeltaTable) -> bool:
    """Whether the tables of a state table may hold rows of a unit from more than one pass."""
    return number(state_table, REDONE) > number(state_table, PRUNED)
