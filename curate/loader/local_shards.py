"""Shards on this machine's disks, read by `preadv` straight into the memory of a batch."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from curate.datasets.files import ShardFile
from curate.errors import UserError

OPEN_FILES = 256  # kept open: most systems allow a process 1,024
GAP = 64 << 10  # bytes: a smaller gap between two spans is read too, which is faster than a second call
LOCAL_THREADS = 2  # enough for a disk

Span = tuple[int, memoryview]  # offset in the shard, and the memory to fill from there

_waste = memoryview(bytearray(GAP))  # gaps are read into it: many threads write it and nobody reads it


class OpenFile:
    """A file descriptor that is closed when nothing refers to it any more."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "number"):
            close(self.number)


class OpenFiles:
    """The most recently read files, kept open by path. Safe for many threads."""

    def __init__(self, most: int = OPEN_FILES):
        self.most = most
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str) -> OpenFile:
        with self._lock:
            file = self._files.get(path)
            if file is None:
                return self._keep(path, OpenFile(path))
            self._files.move_to_end(path)
            return file

    def put(self, path: str, file: OpenFile) -> None:
        with self._lock:
            self._keep(path, file)

    def forget(self, path: str) -> None:
        with self._lock:
            self._files.pop(path, None)

    def _keep(self, path: str, file: OpenFile) -> OpenFile:
        self._files[path] = file
        if len(self._files) > self.most:
            self._files.popitem(last=False)
        return file


def read_spans(file: OpenFile, spans: Sequence[Span]) -> None:
    """Fills the spans, which are sorted by offset, in few system calls. EOFError if the file ends before that."""
    at = 0
    while at < len(spans):
        start, view = spans[at]
        end, buffers = start + len(view), [view]
        at += 1
        while at < len(spans) and 0 <= (gap := spans[at][0] - end) <= GAP:
            if gap:
                buffers.append(_waste[:gap])
            buffers.append(spans[at][1])
            end = spans[at][0] + len(spans[at][1])
            at += 1
        if os.preadv(file.number, buffers, start) != end - start:
            _read_rest(file, start, buffers)


def _read_rest(file: OpenFile, offset: int, buffers: Sequence[memoryview]) -> None:
    """Completes a short read: the system gives at most 2 GiB at a time, and less if it is interrupted."""
    for view in buffers:
        done = 0
        while done < len(view):
            count = os.preadv(file.number, [view[done:]], offset + done)
            if not count:
                raise EOFError(f"it ends at byte {offset + done:,}")
            done += count
        offset += len(view)


class LocalShards:
    """Shards below a local folder. UserError at once if some are missing or have another size."""

    threads = LOCAL_THREADS

    def __init__(self, root: str, shards: Sequence[ShardFile]):
        self.paths = [os.path.join(root, shard.path) for shard in shards]
        self._files = OpenFiles()
        self._check(root, shards)

    def read(self, shard: int, spans: Sequence[Span]) -> None:
        """Fills spans of a shard, by its number. OSError or EOFError if it can't be read."""
        read_spans(self._files.get(self.paths[shard]), spans)

    def forget(self, shard: int, spans: Sequence[Span]) -> bool:
        """False: reading again gives the same bytes."""
        return False

    def _check(self, root: str, shards: Sequence[ShardFile]) -> None:
        missing, other = [], []
        for path, shard in zip(self.paths, shards, strict=True):
            try:
                size = os.stat(path).st_size
            except OSError:
                missing.append(path)
            else:
                if size != shard.bytes:
                    other.append(f"{path} has {size:,} bytes, not {shard.bytes:,}")
        if missing:
            raise missing_shards(len(missing), len(shards), root, missing[0])
        if other:
            raise UserError(
                f"{len(other):,} of {len(shards):,} shards are not as they were written ({other[0]}): "
                "copy them again, or make the dataset again"
            )


def missing_shards(missing: int, of: int, root: str, example: str) -> UserError:
    """The error for `missing` shards of all `of`."""
    return UserError(
        f"{missing:,} of {of:,} shards are missing below {root} (such as {example}): if they were moved, say where the "
        "folder is that holds shards/ (root=, --shards), else make the dataset again"
    )
