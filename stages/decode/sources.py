"""Opens sources: local files, remote objects through fsspec, and members of archives in either.

Only the parent of a decoder's child does this.
"""

from __future__ import annotations

import io
import os
import socket
import threading
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

from stages.decode.archives.files import FileStatus, open_local, remote_details
from stages.decode.archives.members import Opened, member_status, open_member, refusal
from stages.decode.archives.stream import MemberStream
from stages.decode.archives.uri import is_archive, local_path, split
from stages.decode.ranges import read_range, serve
from stages.decode.reading import SafeFile, reason_of
from stages.frames import SourceError
from stages.unit import Place

REMOTE_BLOCK = 4 * 2**20  # bytes fetched at a time from an object store
REMOTE_BLOCKS = 6  # blocks kept in memory of one remote stream


@dataclass
class Handle:
    """An open source in a form that can be given to another process.

    `channel` is the file itself, or with `ranges` a socket at which `stages.decode.ranges.serve` answers. `size` is
    in bytes, None where the store does not say. `start` is where a member starts in the file of its archive, None for
    a file of its own. `modified` is the time of change of the file, seconds since 1970.
    """

    channel: io.FileIO | socket.socket
    size: int | None
    ranges: bool
    modified: float | None
    start: int | None = None


@dataclass
class _Local:
    descriptor: int
    size: int
    modified: float | None
    start: int | None = None


@dataclass
class _Remote:
    stream: BinaryIO
    size: int | None
    modified: float | None


def open_source(uri: str, place: Place | None = None) -> SafeFile:
    """Opens a local path, a file:// URI, any URI that fsspec knows or a member of an archive there, to be read here.

    `place` is where a member was seen, if that is known. Raises SourceError in one line.
    """
    found = _open(uri, place)
    if isinstance(found, _Local):
        return SafeFile.of_descriptor(found.descriptor, found.size, found.start)
    return SafeFile(partial(read_range, found.stream), found.size, found.stream.close)


def open_handle(uri: str, place: Place | None = None) -> Handle:
    """Opens what `open_source` opens, to be given to a child process. Raises SourceError in one line."""
    found = _open(uri, place)
    if isinstance(found, _Local):
        return Handle(io.FileIO(found.descriptor), found.size, False, found.modified, found.start)
    ours, theirs = socket.socketpair()
    threading.Thread(target=serve, args=(found.stream, ours), name="byte-ranges", daemon=True).start()
    return Handle(theirs, found.size, True, found.modified)


def file_status(uri: str) -> FileStatus | None:
    """Size and time of change of a source, which is not opened; None where there is no such file or member.

    A member has the time of its archive, and the row of a Parquet file no size. Raises SourceError, one line, where its
    place can't be reached.
    """
    if (member := split(uri)) is not None:
        found = file_status(member[0])
        return found and member_status(*member, found.modified)
    if (path := local_path(uri)) is not None:
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise SourceError(f"can't be looked at: {reason_of(error)}") from error
        return FileStatus(status.st_size, status.st_mtime)
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        return FileStatus.of(store.info(path))
    except FileNotFoundError:
        return None
    except Exception as error:  # each store has its own exceptions
        raise SourceError(f"can't be looked at: {reason_of(error)}") from error


def _open(uri: str, place: Place | None) -> _Local | _Remote:
    if (member := split(uri)) is not None:
        return _of_member(open_member(*member, place))
    if is_archive(uri):
        raise SourceError(refusal(uri))
    if (path := local_path(uri)) is not None:
        descriptor, status = open_local(path)
        return _Local(descriptor, status.st_size, status.st_mtime)
    return _open_remote(uri)


def _of_member(opened: Opened) -> _Local | _Remote:
    if opened.file.descriptor is not None:
        return _Local(opened.file.descriptor, opened.length, opened.file.modified, opened.start)
    stream = MemberStream(opened.file, opened.start, opened.length, REMOTE_BLOCK)
    return _Remote(cast("BinaryIO", stream), opened.length, opened.file.modified)


def _open_remote(uri: str) -> _Remote:
    """The open stream, which reads ahead in blocks, and the size of the object in bytes."""
    store, path, details = remote_details(uri)
    try:
        stream = store.open(
            path, "rb", block_size=REMOTE_BLOCK, cache_type="background",
            cache_options={"maxblocks": REMOTE_BLOCKS},
        )  # fmt: skip
    except Exception as error:  # each store has its own exceptions
        raise SourceError(f"can't be opened: {reason_of(error)}") from error
    return _Remote(stream, *FileStatus.of(details))
