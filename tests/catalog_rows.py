"""Rows into a catalog without a run: what a writer and the driver do, for tests of what reads catalogs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from curate.catalog.ledger import Ledger
from curate.catalog.schema import PASS, rows_to_table
from stages.unit import Row


def commit_rows(
    ledger: Ledger,
    tables: Mapping[str, Iterable[Row]],
    types: Mapping[str, Mapping[str, Any]] | None = None,
    redone: bool = False,
) -> None:
    """Commits rows of the ledger's tables, by table, together and as one pass.

    `types` are Arrow types, or their names, of columns that a table does not declare, by table. `redone` says that
    some rows supersede those of an earlier pass.
    """
    made = {name: rows_to_table(name, rows, (types or {}).get(name)) for name, rows in tables.items()}
    writer = ledger.begin({name: rows.schema for name, rows in made.items()})
    passes = {name: pa.array([writer.pass_number] * rows.num_rows, pa.int64()) for name, rows in made.items()}
    ledger.commit([writer.write(name, rows.add_column(0, PASS, passes[name])) for name, rows in made.items()], redone)
