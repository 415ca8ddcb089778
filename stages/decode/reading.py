"""A read-only file object that counts and hashes the bytes of a source while a decoder reads them.

Decoders get this object and never a path, so nothing inside a file can name another file or a host.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import xxhash

from stages.frames import SourceError

HASH_BLOCK = 2**20  # bytes read at a time for what the decoder never asked for
SMALL_GAP = 2**20  # a jump forward over fewer bytes than this is read through, so that the hash goes on


class SafeFile:
    """A read-only file object over `read_at(position, length) -> bytes`, with a content hash.

    `read_at` gives up to `length` bytes and b"" at the end. `size` is in bytes, None where the store does not say.
    The hash covers the bytes up to a frontier: reads that start at or before it extend it, `content_hash` reads what
    is left. `modified` is the time of change, seconds since 1970, None where whoever opened it did not tell. `failure`
    keeps the last read error, because libav reports some of them as the end of the file.
    """

    name = "source"  # what libav is told instead of the path: nothing can be resolved against it

    def __init__(self, read_at: Callable[[int, int], bytes], size: int | None, close: Callable[[], None]):
        self.size = size
        self.bytes_read = 0
        self.modified: float | None = None
        self.failure: SourceError | None = None
        self.local_descriptor: int | None = None  # of a local file that is no member, for decord
        self.closed = False
        self._read_at = read_at
        self._close = close
        self._position = 0
        self._hash = xxhash.xxh3_128()
        self._frontier = 0

    def read(self, length: int = -1) -> bytes:
        """Up to `length` bytes (all that is left for -1); b'' at the end. Raises SourceError."""
        if length < 0:
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
        """Sets the position; raises SourceError before the start, or from the end where the size is not known."""
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

    @classmethod
    def of_descriptor(cls, descriptor: int, size: int, start: int | None = None) -> SafeFile:
        """Over the descriptor of an open local file, which is closed with this object.

        With `start`, over the `size` bytes from there on: a member of an archive.
        """
        if start is not None:
            within = lambda at, length: os.pread(descriptor, max(0, min(length, size - at)), start + at)  # noqa: E731
            return cls(within, size, lambda: os.close(descriptor))
        file = cls(lambda at, length: os.pread(descriptor, length, at), size, lambda: os.close(descriptor))
        file.local_descriptor = descriptor
        return file

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.local_descriptor = None
            self._close()

    def __enter__(self) -> SafeFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, position: int, length: int) -> bytes:
        try:
            data = self._read_at(position, length)
        except Exception as error:  # object stores raise what they like; here it becomes a reason
            self.failure = SourceError(f"reading failed at byte {position}: {reason_of(error)}")
            raise self.failure from error
        self.bytes_read += len(data)
        if position <= self._frontier < position + len(data):
            fresh = memoryview(data)[self._frontier - position :]
            self._hash.update(fresh)
            self._frontier += len(fresh)
        return data


def reason_of(error: BaseException) -> str:
    """An exception as one short line: its text, the system's own for an OSError, or its type where it has no text.

    An answer of an HTTP server is its status code and the URL. fsspec raises FileNotFoundError with the URL alone for
    whatever met an HTTP client: what it was raised from says why.
    """
    why = (isinstance(error, FileNotFoundError) and error.__cause__) or error
    if isinstance(status := getattr(why, "status", None), int):
        url = error if why is not error else getattr(getattr(why, "request_info", None), "real_url", "")
        text = f"HTTP {status} {getattr(why, 'message', '')}: {url}"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error) if why is error else f"{why}: {error}"
    return " ".join(text.split())[:300] or type(error).__name__
