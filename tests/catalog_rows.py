"""Rows into a catalog without a run: what a writer and the driver do, for tests of what reads catalogs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, Transaction

from curate.catalog.catalog import Catalog
from curate.catalog.data_files import DataFile, FileWriter
from curate.catalog.ledger import Ledger
from curate.catalog.schema import PASS, rows_to_table
from curate.catalog.state import version_of
from stages.unit import Row

Types = Mapping[str, Mapping[str, Any]]  # by table and column, an Arrow type or its name


def commit_rows(
    ledger: Ledger, tables: Mapping[str, Iterable[Row]], types: Types | None = None, redone: bool = False
) -> None:
    """Commits rows of the ledger's tables, by table, together and as one pass.

    `types` are those of columns that a table does not declare. `redone` says that some rows supersede those of an
    earlier pass.
    """
    made = {name: rows_to_table(name, rows, (types or {}).get(name)) for name, rows in tables.items()}
    writer = ledger.begin({name: rows.schema for name, rows in made.items()})
    ledger.commit(write_files(writer, made), redone)


def write_files(writer: FileWriter, tables: Mapping[str, pa.Table]) -> list[DataFile]:
    """A file of each table, not committed yet, its rows with the writer's pass."""
    return [writer.write(name, _with_pass(writer, rows)) for name, rows in tables.items()]


def overwrite(ledger: Ledger, rows: pa.Table) -> None:
    """Makes these rows all that the ledger's state table holds, as a stage over all clips does."""
    writer = ledger.begin({ledger.state: rows.schema}, overwrites=True)
    ledger.overwrite(write_files(writer, {ledger.state: rows}), _with_pass(writer, rows).schema)


def note_version(catalog: Catalog, state: str, table: str) -> None:
    """Makes a state table name the version that a data table has now, as a commit does: that one is read.

    For tests that change a data table behind the ledger's back.
    """
    stored, changed = catalog.table(state), catalog.table(table)
    assert stored is not None and changed is not None
    note = CommitProperties(app_transactions=[Transaction(version_of(table), changed.version())])
    stored.create_write_transaction([], "append", stored.schema(), commit_properties=note)


def _with_pass(writer: FileWriter, rows: pa.Table) -> pa.Table:
    return rows.add_column(0, PASS, pa.repeat(pa.scalar(writer.pass_number, pa.int64()), rows.num_rows))
