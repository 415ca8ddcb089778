"""Open files that are read at any place: local ones by pread, remote ones by exact byte ranges through fsspec."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from stages.decode.archives.uri import local_path
from stages.decode.reading import reason_of
from stages.frames import SourceError

CHANGED = ("mtime", "LastModified", "last_modified", "updated")  # in fsspec's `info`: sftp, s3, azure, gcs
LONGEST_READ = 64 << 20  # bytes that a header may ask for at once


class FileStatus(NamedTuple):
    """`size` in bytes and `modified`, seconds since 1970; None for what a store does not say."""

    size: int | None
    modified: float | None

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> FileStatus:
        """What fsspec's `info` says; each store has a name of its own for the time."""
        changed = next((details[name] for name in CHANGED if details.get(name) is not None), None)
        if isinstance(changed, str):
            changed = datetime.fromisoformat(changed)
        return cls(details.get("size"), changed.timestamp() if isinstance(changed, datetime) else changed)


@dataclass
class OpenFile:
    """A file of `size` bytes; `version` changes when it is replaced. `descriptor` is that of a local file. `modified`
    is the time of its last change, seconds since 1970.

    `read_at(position, length)` gives exactly those bytes, fewer only at the end of the file.
    """

    size: int
    version: str
    descriptor: int | None
    read_at: Callable[[int, int], bytes]
    modified: float | None = None

    @classmethod
    def unpacked(cls, descriptor: int, size: int, modified: float | None) -> OpenFile:
        """A temporary file with what was in an archive of that time."""
        return cls(size, "", descriptor, lambda at, length: os.pread(descriptor, length, at), modified)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_file(uri: str) -> OpenFile:
    """Opens a local path, a file:// URI or any URI that fsspec knows. Raises SourceError in one line."""
    if (path := local_path(uri)) is None:
        return _remote_file(uri)
    descriptor, status = open_local(path)
    version = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
    read_at = lambda at, length: os.pread(descriptor, length, at)  # noqa: E731
    return OpenFile(status.st_size, version, descriptor, read_at, status.st_mtime)


def open_local(path: str) -> tuple[int, os.stat_result]:
    """The descriptor of an open regular file, and its status. Raises SourceError.

    Anything but a regular file (a pipe, device, socket, folder) is refused without blocking on it.
    """
    try:
        # Looked at first: merely opening a device can act on it. O_NONBLOCK covers a swap in between.
        _must_be_regular(os.stat(path).st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise SourceError(f"can't be opened: {reason_of(error)}") from error
    try:
        status = os.fstat(descriptor)
        _must_be_regular(status.st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def remote_details(uri: str) -> tuple[Any, str, dict[str, Any]]:
    """(fsspec filesystem, path inside it, what the store says of the object). Raises SourceError."""
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(uri)
        details = store.info(path)
    except Exception as error:  # each store has its own exceptions
        raise SourceError(f"can't be opened: {reason_of(error)}") from error
    if details.get("type") not in (None, "file"):
        raise SourceError(f"not a file but a {details['type']}")
    return store, path, details


def _must_be_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    raise SourceError(f"not a regular file but {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _remote_file(uri: str) -> OpenFile:
    store, path, details = remote_details(uri)
    size, modified = FileStatus.of(details)
    if size is None:
        raise SourceError("the store does not state the size of the archive")

    def read_at(position: int, length: int) -> bytes:
        end = min(position + length, size)
        if position >= end:
            return b""
        data = store.cat_file(path, start=position, end=end)
        if len(data) != end - position:
            raise OSError(f"{len(data)} bytes came for {end - position}: the server must serve byte ranges")
        return data

    return OpenFile(size, repr(sorted(details.items(), key=str)), None, read_at, modified)


class SeekableBytes(io.RawIOBase):
    """Base of file objects that are read at any place of `size` bytes."""

    def __init__(self, size: int):
        self._size, self._position = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position. Raises OSError before the start."""
        offset += {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if offset < 0:
            raise OSError(f"a place before the start ({offset})")
        self._position = offset
        return offset


class SparseReader(SeekableBytes):
    """A file object for those who read a little, jump far and read a little again, as listing an archive does.

    Each jump fetches as many bytes as were read after the jump before, so that headers and small members come in one
    range and hardly a byte of a large member does. A range has `least` bytes or more; one read may have `most`.
    `failure` keeps the last read error, because zipfile takes some of them for damage.
    """

    def __init__(self, file: OpenFile, least: int = 1024, most: int = LONGEST_READ):
        super().__init__(file.size)
        self._file, self._least, self._most = file, least, most
        self.failure: Exception | None = None
        self._start, self._data = 0, b""  # the last range
        self._began, self._reached = 0, 0  # the reads since the last jump

    def read(self, length: int = -1) -> bytes:
        """The bytes asked for, fewer only at the end of the file; all that is left for -1. Raises OSError."""
        end = self._file.size if length < 0 else min(self._position + length, self._file.size)
        if end - self._position > self._most:
            raise OSError(f"{end - self._position} bytes where at most {self._most} are expected")
        if end <= self._position:
            return b""
        if not self._start <= self._position < end <= self._start + len(self._data):
            self._fetch(end)
        data = self._data[self._position - self._start : end - self._start]
        self._position += len(data)
        self._reached = self._position
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _fetch(self, end: int) -> None:
        held = self._start + len(self._data)
        if self._start <= self._position <= held + self._least:  # it reads on
            more = self._get(held, max(end - held, self._least))
            self._start, self._data = self._position, (self._data + more)[self._position - self._start :]
            return
        length = max(end - self._position, self._least, min(self._reached - self._began, 64 * self._least))
        self._start, self._data = self._position, self._get(self._position, length)
        self._began = self._position

    def _get(self, position: int, length: int) -> bytes:
        try:
            return self._file.read_at(position, length)
        except Exception as error:  # stores raise what they like
            self.failure = error
            raise
