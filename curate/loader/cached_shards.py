"""Shards of a remote store, read through a local cache of limited size.

The cache holds pieces rather than shards, since a block of samples is a small part of a shard. The name of a piece is
the shard's hash and the piece's number, so that it can't be mistaken for one of another shard of the same name.
Processes share the folder: one of them fetches a piece, which appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from curate.datasets.files import ShardFile
from curate.errors import UserError, first_line
from curate.loader.local_shards import OpenFile, OpenFiles, Span, missing_shards, read_spans
from curate.storage import filesystem, join, shard_cache

PIECE = 16 << 20  # bytes
REMOTE_THREADS = 16  # a store takes long to answer, and answers many requests at once
ATTEMPTS = 4  # to fetch a piece, with pauses of 0.5, 1 and 2 s between them
LOCKS = 64  # lock files: a piece is fetched under one of them
ROOM = 0.9  # of the limit: down to this, pieces are removed once the limit is passed
OPEN_PIECES = 16  # files kept open; an open piece takes room on the disk even after it was removed
STALE_S = 3600.0  # an unfinished piece older than this was left by a killed process


class CachedShards:
    """`cache` is the folder (None: below the user's cache folder), `cache_gb` (2^30 bytes) the most that it may hold,
    `piece` the bytes of a piece, `sleep` what waits between attempts.

    UserError if the first shard is missing, the store's package is not installed, or the folder can't be used.
    """

    threads = REMOTE_THREADS

    def __init__(
        self,
        root: str,
        shards: Sequence[ShardFile],
        cache: str | None,
        cache_gb: float,
        piece: int = PIECE,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self.root, self.shards, self.piece, self.sleep = root, shards, piece, sleep
        self.limit = int(cache_gb * 2**30)
        self.folder = Path(cache) if cache is not None else shard_cache()
        if self.limit < 4 * piece:
            raise UserError(f"cache_gb {cache_gb}: the cache holds too little; take {4 * piece / 2**30:.2g} or more")
        self.fs, self.path = filesystem(root)
        self._files = OpenFiles(OPEN_PIECES)
        self._check()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.lock():
                pass
        except OSError as error:
            raise UserError(f"can't keep shards in {self.folder} ({error.strerror}): say where with cache=") from error

    def read(self, shard: int, spans: Sequence[Span]) -> None:
        """Fills spans of a shard, by its number. OSError or EOFError if it can't be fetched."""
        pending: list[Span] = []
        current = -1
        for offset, view in spans:
            done = 0
            while done < len(view):
                number, at = divmod(offset + done, self.piece)
                part = view[done : done + self.piece - at]
                if number != current and pending:
                    read_spans(self._get(shard, current), pending)
                    pending = []
                current = number
                pending.append((at, part))
                done += len(part)
        if pending:
            read_spans(self._get(shard, current), pending)

    def forget(self, shard: int, spans: Sequence[Span]) -> bool:
        """Removes the pieces that hold these spans, which may have been damaged on this machine's disk; True."""
        for offset, view in spans:
            for number in range(offset // self.piece, (offset + len(view) - 1) // self.piece + 1):
                path = self._place(shard, number)
                self._files.forget(str(path))
                path.unlink(missing_ok=True)
        return True

    def _place(self, shard: int, number: int) -> Path:
        return self.folder / f"{self.shards[shard].hash}-{self.piece}-{number}"

    @contextmanager
    def lock(self, name: str = "folder") -> Iterator[None]:
        """Held by one thread of one process at a time; the system releases it when a process is killed. Under that
        of the folder no piece appears or goes.
        """
        with open(self.folder / f"{name}.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _get(self, shard: int, number: int) -> OpenFile:
        path = self._place(shard, number)
        with suppress(FileNotFoundError):
            return self._open(path)
        with self.lock(f"{zlib.crc32(path.name.encode()) % LOCKS}"):
            with suppress(FileNotFoundError):  # another process or thread has fetched it meanwhile
                return self._open(path)
            content = self._fetch(shard, number)
            part = path.with_name(f".{uuid.uuid4().hex}.part")
            try:
                part.write_bytes(content)
                file = OpenFile(str(part))  # before others can see it, and remove it to make room
                with self.lock():
                    self._make_room(len(content))
                    part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            self._files.put(str(path), file)
            return file

    def _open(self, path: Path) -> OpenFile:
        file = self._files.get(str(path))
        with suppress(FileNotFoundError):  # it was removed, but is still open here
            os.utime(path)
        return file

    def _fetch(self, shard: int, number: int) -> bytes:
        """A piece from the store. OSError if it can't be fetched, or is not as long as the dataset says."""
        start = number * self.piece
        end = min(start + self.piece, self.shards[shard].bytes)
        path = join(self.path, self.shards[shard].path)
        for attempt in range(ATTEMPTS):
            try:
                content = self.fs.cat_file(path, start=start, end=end)
                break
            except (FileNotFoundError, PermissionError):
                raise
            except Exception as error:
                if attempt == ATTEMPTS - 1:
                    raise OSError(f"{join(self.root, self.shards[shard].path)}: {first_line(error)}") from error
                self.sleep(0.5 * 2**attempt)
        if len(content) != end - start:
            raise OSError(f"the store gave {len(content):,} bytes of {path} from {start:,} on, not {end - start:,}")
        return content

    def _make_room(self, size: int) -> None:
        """Removes the least recently read pieces, if `size` more bytes would pass the limit."""
        found = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):
                about = entry.stat()
                if not entry.name.endswith((".part", ".lock")):
                    found.append((about.st_mtime, about.st_size, entry.path))
                elif entry.name.endswith(".part") and time.time() - about.st_mtime > STALE_S:
                    os.unlink(entry.path)
        total = sum(held for _, held, _ in found) + size
        if total <= self.limit:
            return
        for _, held, path in sorted(found):
            if total <= self.limit * ROOM:
                return
            self._files.forget(path)
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= held

    def _check(self) -> None:
        try:
            about = self.fs.info(join(self.path, self.shards[0].path))
        except FileNotFoundError:
            first = join(self.root, self.shards[0].path)
            raise missing_shards(1, len(self.shards), self.root, first) from None
        except Exception as error:
            raise UserError(f"can't read {self.root}: {first_line(error)}") from error
        if about["size"] != self.shards[0].bytes:
            raise UserError(
                f"{join(self.root, self.shards[0].path)} has {about['size']:,} bytes, not {self.shards[0].bytes:,}: "
                "copy the shards again, or make the dataset again"
            )
