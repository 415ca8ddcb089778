"""The shards of a catalog: those that rows of its tables name, and orphans, files that no row names.

A shard belongs to the catalog only through the rows that name it, and those are committed after it was published. So
an orphan was left by an interrupted run, or its rows were superseded by later ones. It is deleted, unless a dataset was
made of it.
"""

from __future__ import annotations

import datetime
import posixpath
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.catalog.catalog import Catalog
from curate.catalog.gates import quote
from curate.catalog.ledger import Ledger
from curate.shards.kept import dataset_notes
from curate.storage import join
from stages.shards.format import index_path
from stages.shards.made_of import MADE_OF

if TYPE_CHECKING:
    import duckdb

FOLDER = "shards"
SHARD_COLUMNS = ("shard", "shard_hash", "shard_bytes", "index_hash", "bucket", "contract")  # of every such table
# About a clip in its shard, with their types; not every table has them.
CLIP_COLUMNS = dict.fromkeys(("decode_psnr", "window_fps", "window_start_s"), "DOUBLE") | dict.fromkeys(
    MADE_OF, "VARCHAR"
)
PAGE = 64  # shards whose rows are in memory at a time


@dataclass(frozen=True)
class ShardRows:
    """What the rows of one table say about one shard. Each list has one value unless rows contradict each other."""

    table: str
    path: str  # relative to the catalog
    clips: list[str]
    hashes: list[str]
    sizes: list[int]
    index_hashes: list[str]
    buckets: list[str]
    contracts: list[str]  # JSON
    psnr: dict[str, float]  # decode PSNR in dB of the clips for which it was measured
    pass_number: int  # the latest that its rows came with
    committed_at: datetime.datetime  # the latest of its rows


@dataclass(frozen=True)
class Orphan:
    """A file under shards/ that no row names."""

    path: str  # of the catalog's filesystem
    bytes: int


def tables_with_shards(sql: duckdb.DuckDBPyConnection) -> list[str]:
    """The tables whose rows name shards: those with SHARD_COLUMNS."""
    columns: dict[str, set[str]] = {}
    for table, name in sql.execute(
        "SELECT table_name, column_name FROM duckdb_columns() "
        "WHERE schema_name = 'raw' AND database_name = current_database()"
    ).fetchall():
        columns.setdefault(table, set()).add(name)
    return sorted(
        table
        for table, names in columns.items()
        if {"clip_id", "status"} <= names and _prefix(table, names) is not None
    )


def shard_rows_sql(sql: duckdb.DuckDBPyConnection, table: str) -> str:
    """A subquery for the rows of a table with plain names for the shard columns, which `as:` of a recipe renames."""
    names = {row[0] for row in sql.execute(f"DESCRIBE raw.{quote(table)}").fetchall()}
    prefix = _prefix(table, names) or ""
    renamed = [
        f"{quote(prefix + name) if prefix + name in names else f'CAST(NULL AS {CLIP_COLUMNS[name]})'} AS {name}"
        for name in (*SHARD_COLUMNS, *CLIP_COLUMNS)
    ]
    others = [quote(name) for name in sorted(names - {prefix + name for name in (*SHARD_COLUMNS, *CLIP_COLUMNS)})]
    return f"(SELECT {', '.join(others + renamed)} FROM raw.{quote(table)})"


def shard_columns(sql: duckdb.DuckDBPyConnection, table: str) -> dict[str, str] | None:
    """The columns of a table by their plain names of SHARD_COLUMNS; None for a table whose rows name no shards."""
    prefix = _prefix(table, {row[0] for row in sql.execute(f"DESCRIBE raw.{quote(table)}").fetchall()})
    return None if prefix is None else {name: prefix + name for name in SHARD_COLUMNS}


def _prefix(table: str, names: Collection[str]) -> str | None:
    """The prefix of the shard columns, '' or 'TABLE_'; None for a table without all of them."""
    return next((p for p in ("", f"{table}_") if {p + name for name in SHARD_COLUMNS} <= set(names)), None)


def count_shards(sql: duckdb.DuckDBPyConnection, table: str) -> int:
    """How many shards the rows of a table name."""
    rows = sql.execute(f"SELECT count(DISTINCT shard) FROM {shard_rows_sql(sql, table)}").fetchall()
    return int(rows[0][0])


def shards_of(sql: duckdb.DuckDBPyConnection, table: str) -> Iterator[ShardRows]:
    """The shards that a table's rows name, in the order of their paths."""
    cursor = sql.cursor()
    cursor.execute(f"""
        SELECT shard, list(clip_id ORDER BY clip_id), list(DISTINCT shard_hash), list(DISTINCT shard_bytes),
            list(DISTINCT index_hash), list(DISTINCT bucket), list(DISTINCT contract),
            list(clip_id) FILTER (decode_psnr IS NOT NULL), list(decode_psnr) FILTER (decode_psnr IS NOT NULL),
            max(pass), max(committed_at)
        FROM {shard_rows_sql(sql, table)} WHERE shard IS NOT NULL GROUP BY shard ORDER BY shard""")
    while page := cursor.fetchmany(PAGE):
        for path, clips, hashes, sizes, index_hashes, buckets, contracts, sampled, psnr, *last in page:
            known = dict(zip(sampled or [], psnr or [], strict=True))
            yield ShardRows(table, path, clips, hashes, sizes, index_hashes, buckets, contracts, known, *last)


def orphans(catalog: Catalog, table: str) -> tuple[list[Orphan], list[Orphan]]:
    """The files under shards/<table>/ that no row of the table names: shards, indexes and temporary files; and those
    of them that are kept, because a dataset was made of them.

    While a run is live they may be what it will commit next. A table that is missing, or has no row with a shard, has
    no orphans: its shards may be all that is left of it.
    """
    there = files_of(catalog, table)  # before the rows are read: rows name what is committed in between
    named = _named(catalog, table) if there else set()
    if not named:
        return [], []
    kept = _files(catalog, {shard for note in dataset_notes(catalog) for shard in note.shards})
    found = [Orphan(path, size) for path, size in sorted(there.items()) if path not in named]
    return [one for one in found if one.path not in kept], [one for one in found if one.path in kept]


def collect_orphans(ledger: Ledger) -> list[Orphan]:
    """Deletes the orphans of a ledger's state table, and returns them.

    Call it only while none of this run's workers is writing: before they start, or after the last commit. The lease of
    the ledger guards against other runs.
    """
    found, _ = orphans(ledger.catalog, ledger.state)
    ledger.lease.check()  # after listing: if it still holds, no file found is another run's
    for orphan in found:
        try:
            ledger.catalog.fs.rm_file(orphan.path)
        except FileNotFoundError:
            continue
    return found


def files_of(catalog: Catalog, table: str) -> dict[str, int]:
    """path -> bytes of the files under shards/<table>/."""
    try:
        found = catalog.fs.find(join(catalog.path, FOLDER, table), detail=True)
    except FileNotFoundError:
        return {}
    return {path: about["size"] or 0 for path, about in found.items()}


def _named(catalog: Catalog, table: str) -> set[str]:
    """The paths of the tars and indexes that rows name, superseded rows included."""
    stored = catalog.table(table)
    if stored is None or (prefix := _prefix(table, stored.schema().to_arrow().names)) is None:
        return set()
    named: set[str] = set()
    column = f"{prefix}shard"
    for part in catalog.read(stored, [column]):
        if column in part.column_names:
            named.update(shard for shard in part[column].unique().to_pylist() if shard)
    return _files(catalog, named)


def _files(catalog: Catalog, shards: Collection[str]) -> set[str]:
    """The paths of the tars of shards, and of their indexes."""
    tars = {posixpath.join(catalog.path, shard) for shard in shards}
    return tars | {index_path(path) for path in tars}
