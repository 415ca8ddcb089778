"""`clipmill export`: latents as Parquet files, one for each shard, which any reader of Parquet can read.

An array is a flat list in C order, with its shape in another column. Parquet has no bfloat16: it becomes float32.
"""

from __future__ import annotations

import json
import os
import posixpath
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect, query
from curate.errors import UserError
from curate.exports.folder import ExportFolder
from curate.progress_bar import ProgressBar
from curate.shards.inventory import ShardRows, count_shards, shards_of, tables_with_shards
from curate.storage import join
from stages.decode.reading import reason_of
from stages.shards.contract import Contract
from stages.shards.folder import shard_folder
from stages.shards.format import JSON, ShardError, fields_of, open_file, read_header, read_index, widened

if TYPE_CHECKING:
    import duckdb

PART_BYTES = 32 << 20  # of latents in memory at a time, and in a row group


def run_export(catalog: str, output: str, select: str | None = None, table: str | None = None) -> int:
    """`clipmill export`: returns 0 if all was written, 1 if a shard was not; each such shard is a line on stderr."""
    clips, files, problems = export_parquet(Catalog.open(catalog), output, select, table)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{clips:,} clips in {files:,} files below {output}" + (f"; {len(problems):,} failed" if problems else ""))
    return 1 if problems else 0


def export_parquet(
    catalog: Catalog, folder: str, select: str | None = None, table: str | None = None
) -> tuple[int, int, list[str]]:
    """Writes FOLDER/<bucket>/<shard_id>.parquet for each shard, whole or absent, with the clips that `select` gives
    (SQL with a column clip_id; None: all). Returns (clips, files, a line for each shard that could not be exported).

    `table` is needed if several have shards. UserError for a wrong table, wrong SQL, and a folder that can't be
    written or that holds something else.
    """
    clips, files, problems = 0, 0, []
    with connect(catalog) as sql:
        table = _table(catalog, tables_with_shards(sql), table)
        if select is not None:
            text = f"SELECT DISTINCT clip_id FROM (\n{select.strip().rstrip(';')}\n)"
            query(sql, f"{text} LIMIT 0")  # raises UserError for wrong SQL
            sql.execute(f"CREATE TEMP TABLE chosen AS {text}")
        about = {"export": "latents", "catalog": catalog.uri, "table": table, "select": select}
        with ExportFolder(folder, about):
            for shard in _with_progress(shards_of(sql, table), count_shards(sql, table)):
                if not (wanted := _wanted(sql, shard, select)):
                    continue
                try:
                    clips += _export(join(catalog.uri, shard.path), shard, wanted, folder)
                    files += 1
                except ShardError as error:
                    problems.append(str(error))
    return clips, files, problems


def _wanted(sql: duckdb.DuckDBPyConnection, shard: ShardRows, select: str | None) -> set[str]:
    """The clips of a shard that are exported."""
    if select is None:
        return set(shard.clips)
    found = sql.execute("SELECT clip_id FROM chosen WHERE clip_id IN (SELECT unnest(?))", [shard.clips])
    return {clip for (clip,) in found.fetchall()}


def _with_progress(shards: Iterator[ShardRows], total: int) -> Iterator[ShardRows]:
    with ProgressBar("export", total, "shards") as progress:
        for done, shard in enumerate(shards, 1):
            yield shard
            progress.update(done)


def _table(catalog: Catalog, found: list[str], table: str | None) -> str:
    """The table whose shards are exported."""
    if not found:
        raise UserError(
            f"{catalog.uri} has no latents: run a recipe with `encode` first (--clips exports clips as MP4)"
        )
    if table is None and len(found) > 1:
        raise UserError(f"shards are named by the tables {', '.join(found)}: say which with --table")
    if table is not None and table not in found:
        raise UserError(f"no table {table!r} names shards; those that do: {', '.join(found)}")
    return table or found[0]


def _export(path: str, shard: ShardRows, wanted: Collection[str], folder: str) -> int:
    """Writes the file of one shard; returns its number of clips. ShardError for a damaged shard."""
    contract = Contract.from_dict(read_header(path)["contract"])
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_index(path).to_pylist():
        if row["clip_id"] in wanted:
            rows.setdefault(row["clip_id"], []).append(row)
    if missing := set(wanted) - set(rows):
        raise ShardError(f"{path} does not hold the clip {min(missing)}, which a row says it does")
    bucket, name = posixpath.split(shard.path)
    place = shard_folder(join(folder, posixpath.basename(bucket)))
    part = None
    try:
        part = place.temporary()
        with open_file(path) as file, open(part, "xb") as out:
            _write(out, _samples(file, path, rows), _schema(rows, contract, shard))
        place.publish(part, name.removesuffix(".tar") + ".parquet")
    except BaseException as error:
        if part is not None:
            with suppress(OSError):
                os.unlink(part)
        if isinstance(error, Exception) and not isinstance(error, ShardError):
            raise UserError(f"can't write to {folder}: {reason_of(error)}") from error
        raise
    return len(rows)


def _schema(rows: Mapping[str, list[dict[str, Any]]], contract: Contract, shard: ShardRows) -> pa.Schema:
    """clip_id, the clip's JSON, and for each field that any clip has its values and their shape."""
    columns: dict[str, pa.DataType] = {"clip_id": pa.string(), JSON: pa.string()}
    for name, dtype in sorted({(row["field"], row["dtype"]) for found in rows.values() for row in found}):
        if name != JSON:
            kind = pa.float32() if _is_bits(name, contract) else pa.from_numpy_dtype(np.dtype(dtype))
            columns |= {name: pa.list_(kind), f"{name}_shape": pa.list_(pa.int32())}
    about = {"contract": contract.to_json(), "digest": contract.digest, "bucket": shard.buckets[0], "shard": shard.path}
    return pa.schema(columns, metadata=about)


def _is_bits(name: str, contract: Contract) -> bool:
    return contract.dtype == "bfloat16" and name in ("mean", "logvar")


def _samples(file: BinaryIO, path: str, rows: Mapping[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for clip, found in rows.items():
        yield {"clip_id": clip, **fields_of(file, path, found)}


def _write(out: BinaryIO, samples: Iterator[dict[str, Any]], schema: pa.Schema) -> None:
    """Writes row groups of about PART_BYTES, of at least one sample."""
    from pyarrow.parquet import ParquetWriter

    numbers = [name for name in schema.names if f"{name}_shape" in schema.names]
    with ParquetWriter(out, schema, compression="zstd", write_page_checksum=True, use_dictionary=["clip_id"]) as writer:
        part: list[dict[str, Any]] = []
        size = 0
        for sample in samples:
            part.append(sample)
            size += sum(sample[name].nbytes for name in numbers if name in sample)
            if size >= PART_BYTES:
                writer.write_table(_table_of(part, schema, numbers))
                part, size = [], 0
        if part:
            writer.write_table(_table_of(part, schema, numbers))


def _table_of(samples: list[dict[str, Any]], schema: pa.Schema, numbers: Collection[str]) -> pa.Table:
    columns: dict[str, Any] = {
        "clip_id": [sample["clip_id"] for sample in samples],
        JSON: [json.dumps(sample[JSON], ensure_ascii=False) for sample in samples],
    }
    for name in numbers:
        arrays = [sample.get(name) for sample in samples]
        columns[name] = _lists(arrays, schema.field(name).type)
        columns[f"{name}_shape"] = [None if values is None else list(values.shape) for values in arrays]
    return pa.table(columns, schema)


def _lists(arrays: list[np.ndarray | None], kind: pa.DataType) -> pa.Array:
    """Each array as a flat list, bfloat16 widened to float32; None stays null."""
    flat = [np.empty(0, kind.value_type.to_pandas_dtype()) if values is None else values.ravel() for values in arrays]
    if kind.value_type == pa.float32():
        flat = [widened(v) if v.dtype == np.uint16 else v for v in flat]
    offsets = np.cumsum([0, *(len(values) for values in flat)]).astype(np.int32)
    missing = pa.array([values is None for values in arrays])
    values = pa.array(np.concatenate(flat), kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind, mask=missing)
