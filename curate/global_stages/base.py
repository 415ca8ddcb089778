"""Stages that look at all clips at once (duplicates, clusters): a set operation over committed rows.

Never test-and-set: what such a stage says of a clip follows from the whole set alone, so retries, order and
reruns change nothing. Its table is replaced as a whole in one commit.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import ClassVar

import duckdb
import numpy as np
import pyarrow as pa

from curate.catalog.arrays import array
from curate.catalog.catalog import Catalog
from curate.catalog.gates import one_line
from curate.catalog.ledger import Ledger
from curate.catalog.schema import MARKED
from stages.base import SettingsError


class SetStage:
    """Subclasses give `columns` and `compute`, and set `name` and `default_table`."""

    name: ClassVar[str]
    default_table: ClassVar[str]

    def __init__(self, table: str | None = None):
        self.table = table or self.default_table

    def check(self) -> None:
        """Raises stages.base.SettingsError for settings that can't work here."""

    def versions(self) -> dict[str, str]:
        return {}

    def columns(self) -> dict[str, dict[str, str]]:
        """{table: {column: Arrow type name}}"""
        raise NotImplementedError

    def compute(self, connection: duckdb.DuckDBPyConnection, select: str, previous: pa.Table | None) -> pa.Table:
        """The table's whole content: one row for each clip_id that the SQL `select` gives.

        `connection` has the views of the catalog, `previous` is what the table holds, made under the same
        settings (None: nothing).
        """
        raise NotImplementedError


def run_set(
    stage: SetStage,
    catalog: Catalog,
    ledger: Ledger,
    connection: duckdb.DuckDBPyConnection,
    select: str,
    stamp: Mapping[str, str],
) -> int:
    """Computes a set stage and commits its table; returns how many clips it has a row for."""
    previous = _previous(catalog, stage.table, stamp["settings"])
    try:
        made = stage.compute(connection, select, previous)
    except duckdb.Error as error:
        raise SettingsError(one_line(error)) from error
    rows = made.num_rows
    now = datetime.datetime.now(datetime.UTC)
    for name, value in {"status": "done", **stamp, "committed_at": now}.items():
        one = array([value], MARKED.field(name).type)
        made = made.append_column(name, one.take(pa.array(np.zeros(rows, np.int64))))
    ledger.overwrite(made)
    return rows


def _previous(catalog: Catalog, name: str, settings: str) -> pa.Table | None:
    """What the table holds, if all of it was made under these settings."""
    table = catalog.table(name)
    if table is None:
        return None
    parts = [part for part in catalog.read(table) if part.num_rows]
    if not parts:
        return None
    found = pa.concat_tables(parts, promote_options="default")
    return found if set(found["settings"].unique().to_pylist()) == {settings} else None
