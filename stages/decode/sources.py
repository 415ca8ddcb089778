"""Opens sources: local files, and remote objects through fsspec. Only the parent of a decoder's child does this.

Anything but a regular file (a pipe, device, socket, folder) is refused without blocking on it.
"""

from __future__ import annotations

import io
import os
import re
import socket
import stat
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from stages.decode.ranges import read_range, serve
from stages.decode.reading import SafeFile, reason_of
from stages.frames import SourceError

REMOTE_BLOCK = 4 * 2**20  # bytes fetched at a time from an object store
REMOTE_BLOCKS = 6  # blocks kept in memory of one remote stream

CHANGED = ("mtime", "LastModified", "last_modified", "updated")  # in fsspec's `info`: sftp, s3, azure, gcs

_REMOTE = re.compile(r"[A-Za-z][\w+.-]*(::[A-Za-z][\w+.-]*)*://")


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
class Handle:
    """An open source in a form that can be given to another process.

    `channel` is the file itself, or with `ranges` a socket at which `stages.decode.ranges.serve` answers. `size` is
    in bytes, None where the store does not say; `modified` is the time of change, seconds since 1970.
    """

    channel: io.FileIO | socket.socket
    size: int | None
    ranges: bool
    modified: float | None


def open_source(uri: str) -> SafeFile:
    """Opens a local path, a file:// URI or any URI that fsspec knows, to be read in this process.

    Raises SourceError in one line.
    """
    if (path := _local_path(uri)) is not None:
        return SafeFile.of_descriptor(*_open_local(path))
    stream, status = _open_remote(uri)
    return SafeFile(partial(read_range, stream), status.size, stream.close)


def open_handle(uri: str) -> Handle:
    """Opens what `open_source` opens, to be given to a child process. Raises SourceError in one line."""
    if (path := _local_path(uri)) is not None:
        descriptor, length = _open_local(path)
        return Handle(io.FileIO(descriptor), length, False, os.fstat(descriptor).st_mtime)
    stream, status = _open_remote(uri)
    ours, theirs = socket.socketpair()
    threading.Thread(target=serve, args=(stream, ours), name="byte-ranges", daemon=True).start()
    return Handle(theirs, status.size, True, status.modified)


def _local_path(uri: str) -> str | None:
    """The path of a local file, None for a remote URI."""
    if uri.startswith("file://"):
        return os.fsdecode(urllib.parse.unquote_to_bytes(uri.removeprefix("file://")))
    return None if _REMOTE.match(uri) else uri


def _open_local(path: str) -> tuple[int, int]:
    """The descriptor of the open file, and its size in bytes."""
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
    return descriptor, status.st_size


def file_status(uri: str) -> FileStatus | None:
    """Size and time of change of a source, which is not opened; None where there is no such file.

    Raises SourceError, one line, where its place can't be reached.
    """
    if (path := _local_path(uri)) is not None:
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise SourceError(f"can't be looked at: {reason_of(error)}") from error
        return FileStatus(found.st_size, found.st_mtime)
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        return FileStatus.of(store.info(path))
    except FileNotFoundError:
        return None
    except Exception as error:  # each store has its own exceptions
        raise SourceError(f"can't be looked at: {reason_of(error)}") from error


def _must_be_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    raise SourceError(f"not a regular file but {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _open_remote(uri: str) -> tuple[BinaryIO, FileStatus]:
    """The open stream, which reads ahead in blocks, and what the store says of the object."""
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(uri)
        details = store.info(path)
        if details.get("type") not in (None, "file"):
            raise SourceError(f"not a file but a {details['type']}")
        stream = store.open(
            path, "rb", block_size=REMOTE_BLOCK, cache_type="background",
            cache_options={"maxblocks": REMOTE_BLOCKS},
        )  # fmt: skip
    except SourceError:
        raise
    except Exception as error:  # each store has its own exceptions
        raise SourceError(f"can't be opened: {reason_of(error)}") from error
    return stream, FileStatus.of(details)
