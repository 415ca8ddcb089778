"""Superseded rows: those of a unit that a later pass made again. How views leave them out, and which they are."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from curate.catalog.catalog import Catalog, file_paths
from curate.catalog.gates import literal, quote
from curate.catalog.schema import PASS
from curate.storage import is_local


def latest_sql(key: str, state_files: str) -> str:
    """A condition on a table's rows: they came with the latest pass of their unit.

    `state_files` is the relation of the state table's data files, in SQL.
    """
    name = quote(key)
    return f"({name}, {PASS}) IN (SELECT ({name}, max({PASS})) FROM {state_files} GROUP BY {name})"


def superseded_by_pass(catalog: Catalog, state_table: DeltaTable, key: str) -> dict[int, pa.Array]:
    """The keys whose rows of a pass are superseded, by pass."""
    with duckdb.connect() as sql:
        if not is_local(catalog.uri):
            sql.register_filesystem(catalog.fs)
        name = quote(key)
        rows = sql.sql(f"""
            SELECT {name}, {PASS} FROM {files_sql(state_table)}
            QUALIFY {PASS} < max({PASS}) OVER (PARTITION BY {name})""").to_arrow_table()
    passes = rows[PASS].unique().to_pylist()
    return {number: rows.filter(pc.equal(rows[PASS], number))[key].combine_chunks() for number in passes}


def files_sql(table: DeltaTable, *options: str) -> str:
    """The data files of a table as DuckDB reads them, with more options of `read_parquet`."""
    files = f"[{', '.join(literal(no_glob(path)) for path in file_paths(table))}]"
    return f"read_parquet({', '.join([files, *options])})"


def no_glob(path: str) -> str:
    """DuckDB takes every path for a pattern."""
    return "".join(f"[{c}]" if c in "*?" else c for c in path)
