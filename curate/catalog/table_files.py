"""The files of a table: which hold superseded or forgotten rows, which are small, which were never committed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from curate.catalog.catalog import Catalog, relative_paths
from curate.catalog.data_files import NAME, DataFile
from curate.catalog.gates import literal, quote
from curate.catalog.schema import PASS
from curate.catalog.superseded_rows import files_sql, no_glob
from curate.errors import UserError
from curate.storage import is_local


@dataclass(frozen=True)
class Compaction:
    """So many small files of a table are merged. A merged file is not small, so that it is not merged again.

    Bytes are those of a file as it is stored, for `small_bytes`, or of its rows in memory, for `target_bytes`.
    """

    small_files: int = 32
    small_bytes: int = 32 << 20
    small_rows: int = 1 << 16
    target_bytes: int = 256 << 20


@dataclass(frozen=True)
class Erasure:
    """What goes from a table: rows by values of the column `key`. `changed` has the key and other columns: the values
    that the rows of its keys get there.
    """

    key: str
    gone: pa.Array
    changed: pa.Table | None = None

    @property
    def keys(self) -> pa.Array:
        """Those of all rows that are touched."""
        return self.gone if self.changed is None else pa.concat_arrays([self.gone, *self.changed[self.key].chunks])


DEFAULT = Compaction()


def sizes(table: DeltaTable) -> dict[str, int]:
    """Bytes of the files of a table, by path relative to its folder."""
    found = pa.table(table.get_add_actions(flatten=True))
    return dict(zip(found["path"].to_pylist(), found["size_bytes"].to_pylist(), strict=True))


def files_of_passes(table: DeltaTable, passes: Collection[int]) -> list[str]:
    """The files that may hold rows of these passes, by their statistics."""
    rows = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    return [
        row["path"]
        for row in rows
        if row.get(f"min.{PASS}") is None or any(row[f"min.{PASS}"] <= p <= row[f"max.{PASS}"] for p in passes)
    ]


def files_of_keys(catalog: Catalog, table: DeltaTable, key: str, keys: pa.Array) -> list[str]:
    """The files that hold rows of these keys. Reads the key column of every file."""
    paths = {path.rsplit("/", 1)[-1]: path for path in relative_paths(table)}
    if not paths:
        return []
    with duckdb.connect() as sql:
        if not is_local(catalog.uri):
            sql.register_filesystem(catalog.fs)
        sql.register("wanted", pa.table({"key": keys}))
        rows = sql.sql(
            f"SELECT DISTINCT parse_filename(filename) FROM {files_sql(table, 'filename = true')} "
            f"WHERE {quote(key)} IN (SELECT key FROM wanted)"
        ).fetchall()
    return sorted(paths[name] for (name,) in rows)


def changes_by_file(catalog: Catalog, table: DeltaTable, key: str, changed: str) -> Iterator[tuple[str, pa.Table]]:
    """(file, the rows of the Parquet file `changed` whose keys stand in it), one file of the table at a time."""
    paths = {path.rsplit("/", 1)[-1]: path for path in relative_paths(table)}
    if not paths:
        return
    with duckdb.connect() as sql:
        if not is_local(catalog.uri):
            sql.register_filesystem(catalog.fs)
        sql.execute(f"CREATE VIEW changed AS SELECT * FROM read_parquet({literal(no_glob(changed))})")
        rows = f"SELECT {quote(key)}, parse_filename(filename) AS name FROM {files_sql(table, 'filename = true')}"
        holding = sql.sql(f"SELECT DISTINCT name FROM ({rows}) SEMI JOIN changed USING ({quote(key)})").fetchall()
        for (name,) in sorted(holding):
            keys = f"SELECT {quote(key)} FROM ({rows}) WHERE name = {literal(name)}"
            yield (
                paths[name],
                sql.sql(f"SELECT * FROM changed SEMI JOIN ({keys}) USING ({quote(key)})").to_arrow_table(),
            )


def small_groups(table: DeltaTable, rule: Compaction) -> list[list[str]]:
    """Groups of small files to merge; none where there are few."""
    rows = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"]).to_pylist()
    small = [r for r in rows if r["size_bytes"] < rule.small_bytes and (r["num_records"] or 0) < rule.small_rows]
    if len(small) < rule.small_files:
        return []
    groups: list[list[str]] = [[]]
    size = 0
    for row in small:
        if size + row["size_bytes"] > rule.target_bytes:
            groups.append([])
            size = 0
        groups[-1].append(row["path"])
        size += row["size_bytes"]
    return [group for group in groups if len(group) > 1]


def refuse_missing(catalog: Catalog, files: Iterable[DataFile]) -> None:
    """UserError for a new file that is not there, or has another size than its writer said."""
    for file in files:
        if (size := catalog.file_size(file.table, file.name)) != file.size:
            found = "is missing" if size is None else f"has {size:,} bytes, not {file.size:,}"
            raise UserError(
                f"the new file {file.name} of table {file.table!r} {found}; it was not committed: run the same command "
                "again"
            )


def uncommitted(catalog: Catalog, name: str, table: DeltaTable, live: Collection[str]) -> list[str]:
    """Files that no version of the last week names and no run of `live` has written. Brings `table` up to date."""
    there = catalog.file_names(name)  # before the log is read: it names what was committed meanwhile
    table.update_incremental()
    of_dead = {file for file in there if (match := NAME.fullmatch(file)) and match[1] not in live}
    unnamed = of_dead - set(relative_paths(table))
    if unnamed:
        unnamed -= set(table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=True))
    return sorted(unnamed)


def vacuum_all(table: DeltaTable) -> None:
    """Deletes every file that the version at hand does not name. While nobody writes or reads another one."""
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
