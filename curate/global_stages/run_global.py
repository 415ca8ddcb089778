"""Runs a stage over all clips: computes its table and commits it as a whole."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import duckdb
import numpy as np
import pyarrow as pa

from curate.catalog.arrays import array
from curate.catalog.catalog import Catalog
from curate.catalog.data_files import with_schema
from curate.catalog.gates import one_line
from curate.catalog.ledger import Ledger
from curate.catalog.schema import PASS, STATE
from stages.base import GlobalStage, SettingsError
from stages.unit import Row

FILE_ROWS = 1_000_000  # of a data file


def run_global(
    stage: GlobalStage,
    catalog: Catalog,
    ledger: Ledger,
    connection: duckdb.DuckDBPyConnection,
    select: str,
    stamp: Row,
) -> int:
    """Computes the stage over the clips of `select`; returns how many clips its table has a row for.

    `stamp` are the columns settings, recipe and run_id of every row. Raises SettingsError for SQL that DuckDB refuses.
    """
    columns = {name: stage.column(name) for name in stage.signals()}
    previous = _previous(catalog, stage.table, stamp["settings"])
    if previous is not None:
        previous = _renamed(previous, {column: name for name, column in columns.items()})
    try:
        made = _renamed(stage.compute(connection, select, previous), columns)
    except duckdb.Error as error:
        raise SettingsError(one_line(error)) from error
    now = datetime.datetime.now(datetime.UTC)
    for name, value in {"status": "done", **stamp, "committed_at": now}.items():
        one = array([value], STATE.field(name).type)
        made = made.append_column(name, one.take(pa.array(np.zeros(made.num_rows, np.int64))))
    schema = pa.schema([pa.field(PASS, pa.int64()), *(field for field in made.schema if field.name != PASS)])
    writer = ledger.begin({stage.table: pa.schema(list(schema)[1:])}, overwrites=True)
    made = made.append_column(PASS, pa.repeat(pa.scalar(writer.pass_number, pa.int64()), made.num_rows))
    made = with_schema(made, schema)
    parts = [made.slice(start, FILE_ROWS) for start in range(0, made.num_rows, FILE_ROWS)]
    ledger.overwrite([writer.write(stage.table, part) for part in parts], schema)
    return made.num_rows


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


def _renamed(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    return table.rename_columns([names.get(name, name) for name in table.column_names])
