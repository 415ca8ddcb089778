"""The one way that bytes of a source are read: safely, counted, and hashed on the way past.

Decoders get this object, never a path, so nothing inside a file can name another file or a host.
"""

from __future__ import annotations

import os
import re
import stat
import urllib.parse
from collections.abc import Callable
from typing import Any

import xxhash

from stages.frames import SourceError

REMOTE_BLOCK = 4 * 2**20  # bytes fetched at a time from an object store
REMOTE_BLOCKS = 6  # blocks kept in memory of one remote stream
HASH_BLOCK = 2**20  # bytes read at a time for what the decoder never asked for
SMALL_GAP = 2**20  # a jump forward over fewer bytes than this is read through, so that the hash goes on

_REMOTE = re.compile(r"[A-Za-z][\w+.-]*(::[A-Za-z][\w+.-]*)*://")


class SafeFile:
    """A read-only file object over `read_at(position, length) -> bytes`, with a content hash.

    Bytes read at or across the hash's frontier extend the hash; `content_hash` reads what is left. `failure`
    keeps the first read error, because libav reports some of them as the end of the file.
    """

    name = "source"  # what libav is told instead of the path: nothing can be resolved against it

    def __init__(self, uri: str, read_at: Callable[[int, int], bytes], size: int | None, close: Callable[[], None]):
        self.uri = uri
        self.size = size  # bytes; None where the store does not say
        self.bytes_read = 0
        self.failure: SourceError | None = None
        self.local_descriptor: int | None = None  # of a local file, for decord
        self._read_at = read_at
        self._close = close
        self._position = 0
        self._hash = xxhash.xxh3_128()
        self._frontier = 0

    def read(self, length: int = -1) -> bytes:
        """Up to `length` bytes (all that is left for -1); b'' at the end. Raises SourceError."""
        if length is None or length < 0:
            parts = []
            while part := self.read(HASH_BLOCK):
                parts.append(part)
            return b"".join(parts)
        if length == 0:
            return b""
        if 0 < self._position - self._frontier <= SMALL_GAP:
            self._take(self._frontier, self._position - self._frontier)
        data = self._take(self._position, length)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position; raises SourceError for a place before the start or an end nobody knows."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            if self.size is None:
                raise SourceError("the store does not state the length of a file that must be sought in")
            offset += self.size
        if offset < 0:
            raise SourceError(f"the file asks for a place before its start ({offset})")
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.size is not None

    def content_hash(self) -> str:
        """xxh3-128 of the whole file, 32 hex digits; reads only what nobody has read yet."""
        while self._take(self._frontier, HASH_BLOCK):
            pass
        return self._hash.hexdigest()

    def close(self) -> None:
        self._close()
        self._close = lambda: None
        self.local_descriptor = None

    def __enter__(self) -> SafeFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, position: int, length: int) -> bytes:
        try:
            data = self._read_at(position, length)
        except Exception as error:  # object stores raise what they like; here it becomes a reason
            self.failure = SourceError(f"reading failed at byte {position}: {one_line(error)}")
            raise self.failure from error
        self.bytes_read += len(data)
        if position <= self._frontier < position + len(data):
            fresh = memoryview(data)[self._frontier - position :]
            self._hash.update(fresh)
            self._frontier += len(fresh)
        return data


def one_line(error: BaseException) -> str:
    """An exception as one short line: its text without newlines, or its type where it has none."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:300] or type(error).__name__


def open_source(uri: str) -> SafeFile:
    """Opens a local path, a file:// URI or any URI that fsspec knows. Raises SourceError in one line.

    Anything but a regular file (a pipe, device, socket, folder) is refused without blocking on it.
    """
    if uri.startswith("file://"):
        return _open_local(uri, os.fsdecode(urllib.parse.unquote_to_bytes(uri.removeprefix("file://"))))
    return _open_remote(uri) if _REMOTE.match(uri) else _open_local(uri, uri)


def _open_local(uri: str, path: str) -> SafeFile:
    try:
        # Looked at first: merely opening a device can act on it. O_NONBLOCK covers a swap in between.
        _must_be_regular(os.stat(path).st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise SourceError(f"can't be opened: {one_line(error)}") from error
    try:
        status = os.fstat(descriptor)
        _must_be_regular(status.st_mode)
    except BaseException:
        os.close(descriptor)
        raise

    def read_at(position: int, length: int) -> bytes:
        return os.pread(descriptor, length, position)

    file = SafeFile(uri, read_at, status.st_size, lambda: os.close(descriptor))
    file.local_descriptor = descriptor
    return file


def _must_be_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    raise SourceError(f"not a regular file but {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _open_remote(uri: str) -> SafeFile:
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(uri)
        details = store.info(path)
        if details.get("type") not in (None, "file"):
            raise SourceError(f"not a file but a {details['type']}")
        stream: Any = store.open(
            path, "rb", block_size=REMOTE_BLOCK, cache_type="background",
            cache_options={"maxblocks": REMOTE_BLOCKS},
        )  # fmt: skip
    except SourceError:
        raise
    except Exception as error:  # each store has its own exceptions
        raise SourceError(f"can't be opened: {one_line(error)}") from error

    def read_at(position: int, length: int) -> bytes:
        if stream.tell() != position:
            stream.seek(position)
        return stream.read(length)

    return SafeFile(uri, read_at, details.get("size"), stream.close)
