"""Embeddings of a catalog as one matrix, streamed out of DuckDB in Arrow batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np

from curate.catalog.gates import one_line, quote
from curate.errors import UserError

BATCH_ROWS = 65_536  # embeddings that are taken out of DuckDB at a time


def read_embeddings(
    connection: duckdb.DuckDBPyConnection, table: str = "embeddings", where: str | None = None
) -> tuple[list[str], np.ndarray]:
    """(clip ids in rising order, their embeddings (n, dim) float16) of a table that `embed` filled.

    `where` is a SQL condition on the `clips` view. Only the matrix and the ids are ever whole in memory.
    Raises UserError: no such table, a condition DuckDB does not take, rows of different widths.
    """
    try:
        return _read(connection, table, where)
    except duckdb.Error as error:
        raise UserError(one_line(error)) from error


def embedding_batches(
    connection: duckdb.DuckDBPyConnection, table: str = "embeddings", where: str | None = None, rows: int = BATCH_ROWS
) -> Iterator[tuple[list[str], np.ndarray]]:
    """As `read_embeddings`, in any order and `rows` at a time, so that no more than a batch is in memory."""
    try:
        vector, width = _columns(connection, table)
        chosen = f"SELECT clip_id, {width}, {vector} FROM {quote(table)} WHERE {vector} IS NOT NULL"
        if where is not None:
            chosen += f" AND clip_id IN (SELECT clip_id FROM clips WHERE ({where}\n))"
        for batch in connection.sql(chosen).to_arrow_reader(rows):
            widths = batch.column(1).unique().to_pylist()
            if len(widths) > 1:
                raise UserError(f"table {table!r} holds embeddings of different widths ({sorted(widths)}): rebuild it")
            if widths:
                yield batch.column(0).to_pylist(), _matrix(batch.column(2), widths[0])
    except duckdb.Error as error:
        raise UserError(one_line(error)) from error


def embedding_model(connection: duckdb.DuckDBPyConnection, table: str = "embeddings") -> dict[str, Any]:
    """The settings `model`, `pretrained` and so on of the stage by which the last run filled a table of embeddings.

    Empty where no run says so.
    """
    runs = connection.sql("SELECT stages FROM runs WHERE stages IS NOT NULL ORDER BY started_at DESC").fetchall()
    for (text,) in runs:
        if made := json.loads(text).get(table):
            return next((dict(given) for stage in made["stages"] for given in stage.values() if "model" in given), {})
    return {}


def _read(connection: duckdb.DuckDBPyConnection, table: str, where: str | None) -> tuple[list[str], np.ndarray]:
    vector, width = _columns(connection, table)
    rows = f"FROM {quote(table)} WHERE {vector} IS NOT NULL"
    if where is not None:
        rows += f" AND clip_id IN (SELECT clip_id FROM clips WHERE ({where}\n))"
    widths = [found for (found,) in connection.execute(f"SELECT DISTINCT {width} {rows} ORDER BY 1").fetchall()]
    if not widths:
        return [], np.zeros((0, 0), np.float16)
    if len(widths) > 1:
        raise UserError(f"table {table!r} holds embeddings of different widths ({widths}): rebuild it")
    ids = connection.sql(f"SELECT DISTINCT clip_id {rows} ORDER BY clip_id").to_arrow_table().column(0)
    order = np.array(ids.to_pylist(), dtype=np.bytes_)
    matrix = np.empty((len(order), widths[0]), np.float16)
    # Each row is laid where its id belongs: sorting the wide rows themselves would take twice the memory.
    for batch in connection.sql(f"SELECT clip_id, {vector} {rows}").to_arrow_reader(BATCH_ROWS):
        places = np.searchsorted(order, np.array(batch.column(0).to_pylist(), dtype=np.bytes_))
        matrix[places] = _matrix(batch.column(1), widths[0])
    return ids.to_pylist(), matrix


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[str, str]:
    """The columns of the vectors and their width: a table under a name of its own has it before them."""
    known = {name for (name,) in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()}
    if table not in known:
        raise UserError(f"there is no table {table!r} of embeddings: run a recipe with `embed` first")
    there = {row[0] for row in connection.execute(f"DESCRIBE {quote(table)}").fetchall()}
    for before in ("", f"{table}_"):
        if {f"{before}embedding", f"{before}dim"} <= there:
            return quote(f"{before}embedding"), quote(f"{before}dim")
    raise UserError(f"table {table!r} holds no embeddings: name one that a stage `embed` filled")


def _matrix(column: Any, width: int) -> np.ndarray:
    """A binary Arrow column without NULLs, all values of 2 * width bytes, as (n, width) float16; no copy."""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    values = np.frombuffer(column.buffers()[2], "<f2", count=len(column) * width, offset=int(offsets[0]))
    return values.reshape(len(column), width)
