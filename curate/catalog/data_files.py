"""Data files of tables: Parquet with a checksum in every page, written whole or not at all.

Workers write them and the driver commits them. A name says which run and pass made the file, so that files which
were never committed can be told from those of a live run.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from curate.storage import filesystem, is_local, join
from models.files import write_whole

ROW_GROUP = 128 * 1024  # rows that a writer holds in memory and that DuckDB scans with one thread
GROUP_BYTES = 2 << 20  # of pictures and vectors in a row group: a reader of one row reads its whole group
NAME = re.compile(r"\.?([0-9a-f]{32})-(\d+)-[0-9a-f]{32}\.parquet(?:\.[0-9a-f]{16}\.part)?")  # `write_whole`'s part too


@dataclass(frozen=True)
class DataFile:
    """A file of one table that lies in its folder and is not committed yet."""

    table: str
    name: str  # relative to the table's folder
    rows: int
    size: int  # bytes
    columns: tuple[str, ...]
    stats: str  # JSON, as Delta keeps it

    def add(self, data_change: bool = True) -> AddAction:
        return AddAction(self.name, self.size, {}, int(time.time() * 1000), data_change, self.stats)


@dataclass(frozen=True)
class FileWriter:
    """Writes data files of one pass of one run; picklable."""

    catalog_uri: str
    run_id: str
    pass_number: int

    def write(self, table: str, rows: pa.Table) -> DataFile:
        """One file of a table. Raises OSError, or what the store's client raises; then no file is left."""
        sink = pa.BufferOutputStream()
        # Level 1 of gzip ends with a checksum that every reader checks; binary columns are packed already.
        compression = {f.name: "none" if pa.types.is_binary(f.type) else "gzip" for f in rows.schema}
        levels = {name: 1 for name, codec in compression.items() if codec == "gzip"}
        pq.write_table(
            rows, sink, row_group_size=_group_rows(rows), compression=compression, compression_level=levels or None,
            write_page_checksum=True, store_schema=False,
        )  # fmt: skip
        data = sink.getvalue()
        name = f"{self.run_id}-{self.pass_number}-{uuid.uuid4().hex}.parquet"
        _put(join(self.catalog_uri, table), name, data)
        return DataFile(table, name, rows.num_rows, data.size, tuple(rows.column_names), statistics(rows))


def _group_rows(rows: pa.Table) -> int:
    binary = sum(column.nbytes for column in rows.columns if pa.types.is_binary(column.type))
    return max(1, min(ROW_GROUP, GROUP_BYTES * rows.num_rows // binary)) if binary else ROW_GROUP


def remove(path: str, size: int) -> RemoveAction:
    """The action that takes a committed file out of a table's current version."""
    return RemoveAction(path, True, int(time.time() * 1000), size, {})


def statistics(rows: pa.Table) -> str:
    """Delta's statistics of a file: rows, and the range of numbers and times. Never of text: logs are kept."""
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for field in rows.schema:
        kind = field.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_timestamp(kind)):
            continue
        found = pc.min_max(rows[field.name])
        nulls[field.name] = rows[field.name].null_count
        low, high = _json(found["min"]), _json(found["max"])
        if low is not None and high is not None:
            least[field.name], greatest[field.name] = low, high
    return json.dumps({"numRecords": rows.num_rows, "minValues": least, "maxValues": greatest, "nullCount": nulls})


def _json(value: pa.Scalar) -> Any:
    """A number, or a time in ISO 8601; None for what JSON can't hold: NULL, NaN and infinity."""
    if not value.is_valid:
        return None
    if pa.types.is_timestamp(value.type):
        microseconds = value.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py()
        at = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=microseconds)
        return at.isoformat(timespec="microseconds") + "Z"
    number = value.as_py()
    return number if math.isfinite(number) else None


def _put(folder: str, name: str, data: pa.Buffer) -> None:
    """A whole object of a store by one request; locally a file that is synced and then renamed."""
    fs, path = filesystem(folder)
    if is_local(folder):
        write_whole(os.path.join(path, name), data)
    else:
        fs.pipe_file(f"{path}/{name}", data.to_pybytes())


@dataclass(frozen=True)
class Rewrite:
    """Rows of committed files into new ones, without those that `superseded` names; picklable, run by any worker.

    `schema` is the table's. `superseded` maps a pass to the keys whose rows of that pass go (None: none do).
    `forgotten` are keys whose rows go, whatever their pass. `changed` has the key and other columns: the values that
    the rows of its keys get there.
    """

    writer: FileWriter
    table: str
    paths: tuple[str, ...]  # relative to the table's folder
    schema: pa.Schema
    key: str
    superseded: dict[int, pa.Array] | None = None
    forgotten: pa.Array | None = None
    changed: pa.Table | None = None
    most_bytes: int = 256 << 20  # of a new file, before it is compressed

    def __call__(self) -> list[DataFile]:
        """The new files; the old ones stay until the driver has committed."""
        made: list[DataFile] = []
        waiting: list[pa.Table] = []
        size = 0
        for rows in self._rows():
            waiting.append(rows)
            size += rows.nbytes
            if size >= self.most_bytes:
                made.append(self.writer.write(self.table, pa.concat_tables(waiting)))
                waiting, size = [], 0
        if waiting:
            made.append(self.writer.write(self.table, pa.concat_tables(waiting)))
        return made

    def _rows(self) -> Iterator[pa.Table]:
        fs, folder = filesystem(join(self.writer.catalog_uri, self.table))
        for path in self.paths:
            with fs.open(f"{folder}/{path}", "rb") as file:
                for batch in pq.ParquetFile(file).iter_batches(ROW_GROUP):
                    rows = pa.Table.from_batches([batch])
                    kept = rows.filter(pc.invert(self._gone(rows)))
                    if kept.num_rows:
                        yield self._with_changes(with_schema(kept, self.schema))

    def _with_changes(self, rows: pa.Table) -> pa.Table:
        if self.changed is None:
            return rows
        at = pc.index_in(rows[self.key], value_set=self.changed[self.key])
        for name in self.changed.column_names:
            index = rows.column_names.index(name)
            values = pc.if_else(pc.is_valid(at), self.changed[name].take(at), rows[name])
            rows = rows.set_column(index, rows.schema.field(index), values)
        return rows

    def _gone(self, rows: pa.Table) -> pa.ChunkedArray:
        gone = pa.chunked_array([pa.repeat(pa.scalar(False), rows.num_rows)])
        if self.forgotten is not None:
            gone = pc.or_(gone, pc.is_in(rows[self.key], value_set=self.forgotten))
        for number in pc.unique(rows["pass"]).to_pylist() if self.superseded else ():
            if (keys := (self.superseded or {}).get(number)) is not None:
                of_pass = pc.and_(pc.equal(rows["pass"], number), pc.is_in(rows[self.key], value_set=keys))
                gone = pc.or_(gone, of_pass)
        return gone


RunRewrite = Callable[[Rewrite], list[DataFile]]


def with_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The same rows with exactly the columns of a schema, in its order; missing ones are NULL."""
    there = set(rows.column_names)
    columns = [
        rows[f.name].cast(f.type) if f.name in there else pa.nulls(rows.num_rows, f.type) for f in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=schema)
