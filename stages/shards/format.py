"""The format of shards, and how to read them: a tar of arrays and JSON, its contract first, and an index beside it.

A `.npy` member holds one array; numpy pads its header to 64 bytes, so the data begins at a multiple of 64 bytes and
can be mapped or read by `preadv` straight into a batch. The index has the offset of that data. Members under a folder
`__x__` are no samples: webdataset skips them.
"""

from __future__ import annotations

import ast
import json
import struct
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

BLOCK = tarfile.BLOCKSIZE  # bytes; a member's header and content each begin at a multiple of it
HEADER = "__contract__/contract.json"
EMPTY = "__contract__/empty_{}.npy"  # the encoded empty prompt of a text field
JSON = "json"  # the field of a sample's JSON, and its dtype in the index

INDEX = pa.schema(
    {
        "clip_id": pa.string(),
        "field": pa.string(),  # mean, logvar, tokens, text, text_mask, ..., json
        "offset": pa.int64(),  # in the tar: of the array's data, after the .npy header; of the JSON text
        "length": pa.int64(),  # bytes
        "xxh3": pa.uint64(),  # xxh3_64 of exactly these bytes
        "dtype": pa.string(),  # numpy's name ('uint16' holds the bits of a bfloat16), or 'json'
        "shape": pa.list_(pa.int32()),
    }
)


class ShardError(Exception):
    """A shard that can't be written or read: one line with the file and the reason."""


def index_path(shard: str) -> str:
    """The index that stands beside a tar."""
    return shard.removesuffix(".tar").removesuffix(".parquet") + ".parquet"


def member_name(clip_id: str, field: str) -> str:
    return f"{clip_id}.json" if field == JSON else f"{clip_id}.{field}.npy"


def padded(length: int) -> int:
    """Bytes that content of this length takes in a tar."""
    return -(-length // BLOCK) * BLOCK


def open_file(path: str) -> BinaryIO:
    """A local path or any URI that fsspec knows, to read; ShardError where there is no such file."""
    try:
        if "://" not in path:
            return open(path, "rb")
        import fsspec

        return fsspec.open(path, "rb", use_listings_cache=False).open()
    except FileNotFoundError as error:
        raise ShardError(f"{path} is missing") from error
    except Exception as error:  # the clients of stores raise what they like
        raise ShardError(f"{path} can't be opened: {getattr(error, 'strerror', None) or error}") from error


def members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the content, bytes of it) of each member, in order; the file may be left anywhere between.

    ShardError for a header that is damaged, and for a tar that ends early.
    """
    offset = 0
    while True:
        file.seek(offset)
        block = file.read(BLOCK)
        if block == bytes(BLOCK):
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise ShardError(f"no tar header at byte {offset:,} ({error})") from error
        yield info.name, offset + BLOCK, info.size
        offset += BLOCK + padded(info.size)


def array_place(start: bytes) -> tuple[int, np.dtype, tuple[int, ...]]:
    """(bytes of the .npy header, dtype, shape) of an array's member, of which `start` is the beginning.

    ShardError for what is no .npy in C order.
    """
    try:
        if start[:6] != b"\x93NUMPY" or start[6] not in (1, 2):
            raise ValueError("its magic is another")
        width = 2 if start[6] == 1 else 4
        length = struct.unpack("<H" if width == 2 else "<I", start[8 : 8 + width])[0]
        found = ast.literal_eval(start[8 + width : 8 + width + length].decode("latin1"))
        dtype, shape = np.dtype(found["descr"]), tuple(found["shape"])
        if found["fortran_order"] or dtype.hasobject:
            raise ValueError("it is not in C order or holds objects")
    except (ValueError, KeyError, TypeError, IndexError, SyntaxError, struct.error) as error:
        raise ShardError(f"no array of fixed layout: {error}") from error
    return 8 + width + length, dtype, shape


def read_index(path: str) -> pa.Table:
    """The index of a shard, by its own path or the tar's: one row for each field of each clip."""
    path = index_path(path)
    with open_file(path) as file:
        return parse_index(file.read(), path)


def parse_index(content: bytes, path: str) -> pa.Table:
    """The rows of an index from its bytes; ShardError, naming `path`, for what is none."""
    from pyarrow import parquet

    try:
        table = parquet.read_table(pa.BufferReader(content), page_checksum_verification=True, use_threads=False)
        found = table.schema.names
        table = table.select(INDEX.names).cast(INDEX) if found == INDEX.names else None
    except Exception as error:  # pyarrow's own kinds are many, and a damaged footer can raise nearly any
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ShardError(f"{path} can't be read ({said[0][:200]})") from error
    if table is None:
        raise ShardError(f"{path} is no index of a shard: it has the columns {', '.join(found)[:200]}")
    return table


def read_header(path: str) -> dict[str, Any]:
    """The header of a shard: contract (as a dict), digest, bucket, version of clipmill, and what its writer added."""
    with open_file(path) as file:
        try:
            name, offset, length = next(members(file), ("", 0, 0))
            if name != HEADER:
                raise ShardError(f"it begins with {name!r}, not with {HEADER}")
            file.seek(offset)
            return json.loads(file.read(length))
        except (ShardError, ValueError) as error:
            raise ShardError(f"{path} is no shard: {error}") from error


def read_empty(path: str) -> dict[str, np.ndarray]:
    """field -> the encoded empty prompt (L, D), of the text fields of a shard."""
    found = {}
    before, after = EMPTY.split("{}")
    with open_file(path) as file:
        for name, offset, length in members(file):
            if not name.startswith("__"):
                break
            if name.startswith(before):
                file.seek(offset)
                content = file.read(length)
                start, dtype, shape = array_place(content)
                field = name.removeprefix(before).removesuffix(after)
                found[field] = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return found


def read_sample(path: str, rows: pa.Table | Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """field -> array (or dict, of 'json') of one clip, by its rows of the index.

    Each is compared with its hash: ShardError, naming clip and field, for bytes that are not what was written.
    """
    with open_file(path) as file:
        return fields_of(file, path, rows.to_pylist() if isinstance(rows, pa.Table) else rows)


def fields_of(file: BinaryIO, path: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """As `read_sample`, from an open file; `path` is what a ShardError names."""
    import xxhash

    found: dict[str, Any] = {}
    for row in rows:
        file.seek(row["offset"])
        content = file.read(row["length"])
        if xxhash.xxh3_64_intdigest(content) != row["xxh3"]:
            raise ShardError(f"{path}: the field {row['field']} of clip {row['clip_id']} is damaged")
        if row["dtype"] == JSON:
            found[row["field"]] = json.loads(content)
        else:
            found[row["field"]] = np.frombuffer(content, row["dtype"]).reshape(row["shape"])
    return found


def widened(bits: np.ndarray) -> np.ndarray:
    """The bits of bfloat16, uint16, as float32 of the same shape: they are its upper half."""
    return (bits.astype("<u4") << 16).view(np.float32)


def not_finite(values: np.ndarray, bfloat16: bool = False) -> bool:
    """True if an array holds NaN or infinity; `bfloat16`: it is one's bits, as uint16."""
    if bfloat16 or values.dtype == np.float16:  # all ones in the exponent; many times faster than numpy's isfinite
        mask = 0x7F80 if bfloat16 else 0x7C00
        return bool((values.view(np.uint16) & np.uint16(mask)).max(initial=0) == mask)
    return values.dtype.kind == "f" and not np.isfinite(values).all()
