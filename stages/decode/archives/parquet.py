"""Rows of a Parquet file whose column holds videos: binary, or Hugging Face's struct of bytes and path.

Parquet has no place of a single value, so the videos of a row group are unpacked together into a temporary file, which
is kept for the rows to come.
"""

from __future__ import annotations

import bisect
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stages.decode.archives.files import OpenFile, SparseReader
from stages.decode.reading import reason_of
from stages.frames import SourceError

MOST_RATIO = 100  # a row group that unpacks to more times its size is refused ...
MOST_BYTES = 16 << 30  # ... as is one that unpacks to more bytes
ROOM_BYTES = 1 << 30  # of the temporary folder that stay free
READ = 1 << 20  # bytes that are read at a time
BATCH_ROWS = 1024  # of the columns beside the videos
_NAMES = ("video", "videos", "mp4", "webm", "mkv", "mov", "avi", "clip", "film", "image", "images", "jpg", "png")


@dataclass(frozen=True)
class Videos:
    """The column of videos in a Parquet file; `leaf` is the path of its bytes, `first_rows` those of the row groups."""

    column: str
    leaf: str
    first_rows: tuple[int, ...]
    rows: int

    def group(self, row: int) -> int:
        """The row group that a row is in."""
        return bisect.bisect_right(self.first_rows, row) - 1


class Rows:
    """An open Parquet file: which column holds videos, and what the other columns say. Raises SourceError.

    `footer` is its metadata where they were read before.
    """

    def __init__(self, file: OpenFile, footer: pq.FileMetaData | None = None):
        try:
            source = pa.PythonFile(SparseReader(file, most=2**31), mode="r")
            self._parquet = pq.ParquetFile(source, metadata=footer, pre_buffer=False, buffer_size=READ)
        except Exception as error:  # Arrow raises what it likes for damaged files
            raise SourceError(f"no Parquet file: {reason_of(error)}") from error
        self.footer = self._parquet.metadata
        self.videos = self._videos()

    def _videos(self) -> Videos | None:
        """None where no column holds videos, so that the file is a manifest."""
        schema, metadata = self._parquet.schema_arrow, self.footer
        column = video_column(schema)
        if column is None:
            return None
        leaf = f"{column}.bytes" if pa.types.is_struct(schema.field(column).type) else column
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return Videos(column, leaf, tuple(accumulate(rows[:-1], initial=0)), metadata.num_rows)

    def others(self) -> Iterator[dict[str, Any]]:
        """For each row the columns without bytes; the path beside the bytes as COLUMN_path. Raises SourceError."""
        assert self.videos is not None
        schema, video = self._parquet.schema_arrow, self.videos.column
        columns = [field.name for field in schema if field.name != video and not _has_bytes(field.type)]
        kind = schema.field(video).type
        path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
        asked = [*columns, f"{video}.path"] if path else columns
        if not asked:
            yield from ({} for _ in range(self.videos.rows))
            return
        try:
            for batch in self._parquet.iter_batches(BATCH_ROWS, columns=asked):
                for row in batch.to_pylist():
                    if path:
                        row[f"{video}_path"] = (row.pop(video) or {}).get("path")
                    yield row
        except Exception as error:
            raise SourceError(f"damaged Parquet file: {reason_of(error)}") from error

    def unpack(self, group: int, to: BinaryIO) -> list[tuple[int, int] | None]:
        """Writes the videos of a row group one behind the other; (start, length) of each, None of an empty cell."""
        assert self.videos is not None
        row_group = self.footer.row_group(group)
        parts = [row_group.column(at) for at in range(row_group.num_columns)]
        (part,) = (part for part in parts if part.path_in_schema == self.videos.leaf)
        size, packed = part.total_uncompressed_size, part.total_compressed_size
        if size > MOST_RATIO * max(1, packed) or size > MOST_BYTES:
            raise SourceError(f"{packed} bytes of a row group would unpack to {size}: not unpacked")
        if shutil.disk_usage(tempfile.gettempdir()).free < size + ROOM_BYTES:
            raise SourceError(f"no room to unpack {size} bytes in {tempfile.gettempdir()}: set TMPDIR")
        spans: list[tuple[int, int] | None] = []
        try:
            batches = self._parquet.iter_batches(1, row_groups=[group], columns=[self.videos.leaf], use_threads=False)
            for batch in batches:
                (value,) = batch.column(0).to_pylist()
                data = value.get("bytes") if isinstance(value, dict) else value
                start = to.tell()
                spans.append(None if data is None else (start, to.write(data)))
            to.flush()
        except Exception as error:
            raise SourceError(f"damaged Parquet file: {reason_of(error)}") from error
        return spans


def video_column(schema: pa.Schema) -> str | None:
    """The column that holds videos or images as bytes; None where there is none.

    What Hugging Face's `datasets` noted of its features decides; else a struct of bytes and path, or a binary column,
    by its name where there are several.
    """
    found = {field.name for field in schema if _is_media(field.type)}
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        kinds = {name: feature.get("_type") for name, feature in noted.items() if isinstance(feature, dict)}
    except (ValueError, LookupError, TypeError, AttributeError):
        kinds = {}
    for kind in ("Video", "Image"):
        for name in schema.names:
            if name in found and kinds.get(name) == kind:
                return name
    found -= {name for name in found if kinds.get(name) == "Audio" or "audio" in name.lower()}
    named = [name for name in schema.names if name in found and name.lower() in _NAMES]
    structs = [name for name in schema.names if name in found and pa.types.is_struct(schema.field(name).type)]
    return next(iter([*named, *structs]), next(iter(found), None) if len(found) == 1 else None)


def _is_media(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_binary(kind.field(at).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _has_bytes(kind: pa.DataType) -> bool:
    if _is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_has_bytes(kind.field(at).type) for at in range(kind.num_fields))


@dataclass
class Unpacked:
    """The videos of a row group in a temporary file."""

    descriptor: int
    spans: list[tuple[int, int] | None]
    bytes: int

    def close(self) -> None:
        os.close(self.descriptor)


def unpack(rows: Rows, group: int) -> Unpacked:
    """Unpacks a row group into an unnamed temporary file. Raises SourceError."""
    with tempfile.TemporaryFile() as to:
        spans = rows.unpack(group, to)
        return Unpacked(os.dup(to.fileno()), spans, to.tell())
