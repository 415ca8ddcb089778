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
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from stages.decode.ranges import read_range, serve
from stages.decode.reading import SafeFile, reason_of
from stages.frames import SourceError

REMOTE_BLOCK = 4 * 2**20  # bytes fetched at a time from an object store
REMOTE_BLOCKS = 6  # blocks kept in memory of one remote stream

_REMOTE = re.compile(r"[A-Za-z][\w+.-]*(::[A-Za-z][\w+.-]*)*://")


@dataclass
class Handle:
    """An open source in a form that can be given to another process.

    `channel` is the file itself, or with `ranges` a socket at which `stages.decode.ranges.serve` answers. `size` is
    in bytes, None where the store does not say.
    """

    channel: io.FileIO | socket.socket
    size: int | None
    ranges: bool


def open_source(uri: str) -> SafeFile:
    """Opens a local path, a file:// URI or any URI that fsspec knows, to be read in this process.

    Raises SourceError in one line.
    """
    if (path := _local_path(uri)) is not None:
        return SafeFile.of_descriptor(*_open_local(path))
    stream, size = _open_remote(uri)
    return SafeFile(partial(read_range, stream), size, stream.close)


def open_handle(uri: str) -> Handle:
    """Opens what `open_source` opens, to be given to a child process. Raises SourceError in one line."""
    if (path := _local_path(uri)) is not None:
        descriptor, length = _open_local(path)
        return Handle(io.FileIO(descriptor), length, ranges=False)
    stream, size = _open_remote(uri)
    ours, theirs = socket.socketpair()
    threading.Thread(target=serve, args=(stream, ours), name="byte-ranges", daemon=True).start()
    return Handle(theirs, size, ranges=True)


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


def _must_be_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    raise SourceError(f"not a regular file but {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _open_remote(uri: str) -> tuple[BinaryIO, int | None]:
    """The open stream, which reads ahead in blocks, and the size of the object in bytes."""
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
    return stream, details.get("size")
