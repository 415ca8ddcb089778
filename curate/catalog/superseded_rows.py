"""Rows that a later batch of the same key superseded: how views leave them out, and how they are deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from curate.catalog import parquet
from curate.catalog.catalog import Catalog, file_paths
from curate.catalog.gates import literal, quote
from curate.catalog.schema import BATCH
from curate.storage import is_local

KEYS_IN_SQL = 500  # above this a merge is faster than a list in SQL
ROWS_AT_ONCE = 1_000_000  # of one merge


def latest_sql(key: str, mark: DeltaTable) -> str:
    """A condition on a table's rows: they came with the latest batch of their key."""
    return f"({quote(key)}, {BATCH}) IN (SELECT ({quote(key)}, max({BATCH})) FROM {_files(mark)} GROUP BY {quote(key)})"


def find(catalog: Catalog, mark: DeltaTable, key: str) -> tuple[list[int], pa.Table]:
    """(batches all of whose rows are superseded; key and batch of the superseded rows of other batches)."""
    import duckdb

    with duckdb.connect() as sql:
        if not is_local(catalog.uri):
            sql.register_filesystem(catalog.fs)
        name = quote(key)
        sql.execute(f"""
            CREATE TABLE marked AS SELECT {name}, {BATCH}, {BATCH} < newest AS old
            FROM {_files(mark)} JOIN (SELECT {name}, max({BATCH}) AS newest FROM {_files(mark)} GROUP BY ALL)
            USING ({name})""")
        found = sql.execute(f"SELECT {BATCH} FROM marked GROUP BY ALL HAVING bool_and(old) ORDER BY ALL").fetchall()
        batches = [row[0] for row in found]
        rows = sql.sql(f"""
            SELECT {name}, {BATCH} FROM marked
            WHERE old AND {BATCH} NOT IN (SELECT unnest({batches}::BIGINT[]))""").to_arrow_table()
    return batches, rows


def deletions(key: str, batches: list[int], rows: pa.Table) -> Iterator[Callable[[DeltaTable], Any]]:
    """What deletes these batches and rows from a table, to be called in turn; each may be called twice.

    `rows` are keys with their batches, or keys alone, whatever their batch.
    """
    if batches:
        yield partial(_delete, condition=_within(batches))
    if rows.num_rows > KEYS_IN_SQL:
        for begin in range(0, rows.num_rows, ROWS_AT_ONCE):
            yield partial(_merge, rows=rows.slice(begin, ROWS_AT_ONCE))
    elif rows.num_rows:
        keys: dict[int | None, list[str]] = {}
        numbers = rows[BATCH].to_pylist() if BATCH in rows.column_names else [None] * rows.num_rows
        for value, number in zip(rows[key].to_pylist(), numbers, strict=True):
            keys.setdefault(number, []).append(literal(value))
        same = (f"{key} IN ({', '.join(some)})" + _of_batch(number) for number, some in keys.items())
        yield partial(_delete, condition=" OR ".join(f"({one})" for one in same))


def _of_batch(number: int | None) -> str:
    return "" if number is None else f" AND {BATCH} = {number}"


def _delete(table: DeltaTable, condition: str) -> None:
    table.delete(condition, writer_properties=parquet.CHECKED)


def _merge(table: DeltaTable, rows: pa.Table) -> None:
    matches = " AND ".join(f"t.{column} = s.{column}" for column in rows.column_names)
    if BATCH in rows.column_names:  # the range lets Delta skip the files of other batches
        low, high = pc.min_max(rows[BATCH]).as_py().values()
        matches += f" AND t.{BATCH} BETWEEN {low} AND {high}"
    merge = table.merge(rows, matches, source_alias="s", target_alias="t", writer_properties=parquet.CHECKED)
    merge.when_matched_delete().execute()


def _within(numbers: list[int]) -> str:
    """A condition for sorted numbers, as few ranges as they have."""
    breaks = [i for i, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1]
    ranges = [(numbers[i], numbers[j - 1]) for i, j in pairwise([0, *breaks, len(numbers)])]
    return " OR ".join(f"{BATCH} BETWEEN {low} AND {high}" for low, high in ranges)


def _files(table: DeltaTable) -> str:
    paths = "".join(f"{literal(no_glob(path))}, " for path in file_paths(table))
    return f"read_parquet([{paths}])"


def no_glob(path: str) -> str:
    """DuckDB takes every path for a pattern."""
    return "".join(f"[{c}]" if c in "*?" else c for c in path)
