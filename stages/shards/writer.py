"""Writes a shard into a temporary file, then publishes it whole, with its index, or not at all.

The same input gives the same bytes, and the name is a hash of them: a shard that is written again after a crash gets
the same name as before, and no name ever stands for two contents.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from stages.base import one_line
from stages.shards.contract import Contract, canonical
from stages.shards.folder import WriteError, shard_folder
from stages.shards.format import EMPTY, HEADER, INDEX, JSON, ShardError, array_place, member_name, not_finite, padded

HEADER_ROOM = 16 << 10  # bytes reserved at the start for the header, whose size is known only when all clips are in
PIECE = 4 << 20  # bytes at a time, where a file is read again
LATENTS = ("mean", "logvar", "tokens")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # with a field of 30 it fits a tar header


@dataclass(frozen=True)
class Published:
    """`shard` is relative to the writer's folder: '<bucket>/<shard_id>.tar'. Hashes are xxh3_128, 32 hex digits."""

    shard: str
    hash: str
    bytes: int
    index_hash: str
    clips: int


class ShardWriter:
    """Takes clips of one bucket, then publishes them as one shard. Use it as a context manager: without publish()
    nothing is left.

    `header` may be added to until publish(), since decode PSNR is known late. Raises ShardError for a clip that
    contradicts the contract; the writer is then as before. Raises WriteError when the disk or the store fails; that
    ends the writer and removes its files.
    """

    def __init__(
        self, folder_uri: str, contract: Contract, bucket: str, header: Mapping[str, Any] | None = None,
        empty: Mapping[str, np.ndarray] | None = None,
    ):  # fmt: skip
        self.contract, self.bucket = contract, bucket
        self.header: dict[str, Any] = dict(header or {})
        self.clips: set[str] = set()
        self._shape = contract.latent_shape(bucket)
        self._folder = shard_folder(f"{folder_uri.rstrip('/')}/{bucket}")
        self._index: dict[str, list[Any]] = {name: [] for name in INDEX.names}
        self._about = f"the shard of {bucket} in {folder_uri}"
        self._file: BinaryIO | None = None
        self._parts: list[str] = []  # temporary files
        self._offset = self._room = padded(max(HEADER_ROOM, 2 * len(self._header_json())))
        with self._nothing_left():
            self._file = self._open()
            self._tar.seek(self._offset)
            for field, embedding in sorted((empty or {}).items()):
                self._array(EMPTY.format(field), np.asarray(embedding, order="C"))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def add(self, clip_id: str, fields: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> None:
        """One clip: its arrays by field, and what its JSON says of it (`clip_id` is added)."""
        _ = self._tar
        arrays = {field: np.asarray(fields[field], order="C") for field in sorted(fields)}
        self._check(clip_id, arrays)
        try:
            text = canonical({**info, "clip_id": clip_id}).encode()
        except (TypeError, ValueError) as error:
            raise ShardError(f"clip {clip_id}: what is said of it is no JSON ({error})") from error
        with self._nothing_left():
            self._add(clip_id, arrays, text)
        self.clips.add(clip_id)

    def copy(self, clip_id: str, fields: Mapping[str, bytes]) -> None:
        """One clip of another shard of the same contract: its members by field, each as it stands there."""
        with self._nothing_left():
            for field, content in fields.items():
                start, dtype, shape = (0, JSON, ()) if field == JSON else _named(array_place(content))
                offset = self._member(member_name(clip_id, field), content)
                self._note(clip_id, field, offset + start, memoryview(content)[start:], dtype, shape)
        self.clips.add(clip_id)

    def publish(self) -> Published:
        """Makes the shard visible: the index first, then the tar, each whole."""
        _ = self._tar
        if not self.clips:
            raise ShardError("a shard needs one clip at least")
        header = self._header_json()
        with self._nothing_left():
            return self._publish(header)

    def discard(self) -> None:
        """Removes what was written and not published."""
        if self._file is not None:
            with suppress(OSError):  # flushing fails too, on a full disk
                self._file.close()
            self._file = None
        while self._parts:
            with suppress(OSError):
                os.unlink(self._parts.pop())

    @property
    def _tar(self) -> BinaryIO:
        """The temporary file. ValueError where there is none any more."""
        if self._file is None:
            raise ValueError("this writer was published or discarded, or has failed")
        return self._file

    @contextmanager
    def _nothing_left(self) -> Iterator[None]:
        """On any error inside, removes the temporary files and ends the writer."""
        try:
            yield
        except BaseException as error:
            self.discard()
            if isinstance(error, Exception) and not isinstance(error, ShardError):
                raise WriteError(
                    f"can't write {self._about}: {one_line(error)}; nothing of it is left, and what was published "
                    "before is safe: mend this and run again"
                ) from error
            raise

    def _open(self) -> BinaryIO:
        self._parts.append(self._folder.temporary())
        return open(self._parts[-1], "xb+", buffering=1 << 20)

    def _check(self, clip_id: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Raises ShardError unless the latents fit contract and bucket and everything is finite."""
        if not _NAME.fullmatch(clip_id):
            raise ShardError(f"a clip id of a shard is letters, digits, '-' and '_', not {clip_id!r}")
        if clip_id in self.clips:
            raise ShardError(f"clip {clip_id} is in this shard already")
        tokens = self.contract.codebook is not None
        if ("tokens" if tokens else "mean") not in arrays:
            raise ShardError(f"clip {clip_id} has no {'tokens' if tokens else 'mean'}")
        for field, values in arrays.items():
            if not _NAME.fullmatch(field) or len(field) > 30 or field == JSON:
                raise ShardError(f"a field of a shard is letters, digits, '-' and '_', and not 'json': {field!r}")
            self._check_array(f"clip {clip_id}: {field}", values, field in LATENTS)
            if field == "tokens" and not 0 <= values.min() <= values.max() < self.contract.codebook:
                reach = f"from {values.min()} to {values.max()}, where the codebook has {self.contract.codebook}"
                raise ShardError(f"clip {clip_id}: tokens {reach}")

    def _check_array(self, name: str, values: np.ndarray, latent: bool) -> None:
        bits = latent and self.contract.dtype == "bfloat16"
        if values.dtype.kind not in "fiub" or values.dtype.byteorder == ">":
            raise ShardError(f"{name} is {values.dtype}, which a shard does not hold")
        wanted = "uint16" if bits else self.contract.dtype
        if latent and values.dtype.name != wanted:
            said = " (a bfloat16's bits)" if bits else ""
            raise ShardError(f"{name} is {values.dtype}, not {wanted}{said} as the contract says")
        if latent and values.shape != self._shape:
            raise ShardError(f"{name} has the shape {values.shape}, not {self._shape}, which {self.bucket} gives")
        if not_finite(values, bits):
            raise ShardError(f"{name} holds NaN or infinity")

    def _add(self, clip_id: str, arrays: Mapping[str, np.ndarray], text: bytes) -> None:
        for field, values in arrays.items():
            offset = self._array(member_name(clip_id, field), values)
            self._note(clip_id, field, offset, _bytes_of(values), values.dtype.name, values.shape)
        offset = self._member(member_name(clip_id, JSON), text)
        self._note(clip_id, JSON, offset, text, JSON, ())

    def _array(self, name: str, values: np.ndarray) -> int:
        """Writes an array as .npy; gives the offset of its data."""
        return self._member(name, _npy_header(values.dtype, values.shape), _bytes_of(values))

    def _member(self, name: str, *pieces: Any) -> int:
        """Writes a member of these pieces; gives the offset of the last of them."""
        length = sum(len(piece) for piece in pieces)
        for piece in (_tar_header(name, length), *pieces, bytes(padded(length) - length)):
            self._tar.write(piece)
        content = self._offset + tarfile.BLOCKSIZE
        self._offset = content + padded(length)
        return content + length - len(pieces[-1])

    def _note(self, clip_id: str, field: str, offset: int, data: Any, dtype: str, shape: tuple[int, ...]) -> None:
        import xxhash

        row = (clip_id, field, offset, len(data), xxhash.xxh3_64_intdigest(data), dtype, list(shape))
        for column, value in zip(self._index.values(), row, strict=True):
            column.append(value)

    def _header_json(self) -> bytes:
        own = {"contract": self.contract.to_dict(), "digest": self.contract.digest, "bucket": self.bucket}
        try:
            return canonical({**self.header, **own, "clipmill": _version()}).encode()
        except (TypeError, ValueError) as error:
            raise ShardError(f"what the header of a shard should say is no JSON ({error})") from error

    def _make_room(self, room: int) -> None:
        """Copies everything after the header to a new file, in which a header of this size fits."""
        old, more = self._tar, room - self._room
        new = self._file = self._open()
        old.seek(self._room)
        new.seek(room)
        with old:
            shutil.copyfileobj(old, new, PIECE)
        os.unlink(self._parts.pop(0))
        self._index["offset"] = [offset + more for offset in self._index["offset"]]
        self._room = room

    def _hash(self) -> tuple[int, str]:
        """(bytes, xxh3_128) of the file."""
        import xxhash

        digest, size, tar = xxhash.xxh3_128(), 0, self._tar
        tar.seek(0)
        while piece := tar.read(PIECE):
            digest.update(piece)
            size += len(piece)
        return size, digest.hexdigest()

    def _shard_id(self, header: bytes) -> str:
        """32 hex digits over the header and the index, which has the hash of every field."""
        digest = hashlib.sha256(header)
        digest.update(canonical(self._index).encode())
        return digest.hexdigest()[:32]

    def _write_index(self, tar_hash: str) -> tuple[str, str]:
        """(path, xxh3_128) of the index as a temporary file."""
        import xxhash
        from pyarrow import parquet

        table = pa.table(self._index, INDEX).replace_schema_metadata({"tar_xxh3_128": tar_hash})
        made = pa.BufferOutputStream()
        parquet.write_table(table, made, compression="zstd", write_page_checksum=True)
        content = made.getvalue()
        with self._open() as file:
            file.write(content)
        return self._parts[-1], xxhash.xxh3_128_hexdigest(content)

    def _publish(self, header: bytes) -> Published:
        self._tar.write(bytes(2 * tarfile.BLOCKSIZE))  # how a tar ends
        if tarfile.BLOCKSIZE + len(header) > self._room:
            self._make_room(padded(tarfile.BLOCKSIZE + len(header)))
        self._tar.seek(0)
        length = self._room - tarfile.BLOCKSIZE
        self._tar.write(_tar_header(HEADER, length) + header.ljust(length))  # JSON may end with spaces
        size, digest = self._hash()
        self._tar.close()
        index, index_hash = self._write_index(digest)
        name = self._shard_id(header)
        self._folder.publish(index, f"{name}.parquet")
        self._folder.publish(self._parts[0], f"{name}.tar")
        self._parts, self._file = [], None
        return Published(f"{self.bucket}/{name}.tar", digest, size, index_hash, len(self.clips))


@lru_cache
def _version() -> str:
    try:
        return importlib.metadata.version("clipmill")
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path
        return "not installed"


def _named(place: tuple[int, np.dtype, tuple[int, ...]]) -> tuple[int, str, tuple[int, ...]]:
    return place[0], place[1].name, place[2]


def _bytes_of(values: np.ndarray) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def _tar_header(name: str, length: int) -> bytes:
    """A member's header without time and owner, so the same for the same member. tarfile takes ten times as long."""
    header, encoded = bytearray(_PLAIN), name.encode()
    header[: len(encoded)] = encoded
    header[124:136] = b"%011o\0" % length
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


_PLAIN = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)


@lru_cache(1024)
def _npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    start = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(start, {"descr": descr, "fortran_order": False, "shape": shape})
    return start.getvalue()
