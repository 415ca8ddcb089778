"""Shards of a remote store, in pieces through a folder of this machine that holds a limited number of bytes.

Pieces rather than shards, since a block of samples is a small part of one. Their names are the shard's hash and
the piece's number, so that another shard of the same name is never mistaken for it. Processes share the folder: a
piece is fetched by one of them, and appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from curate.datasets.files import Shard
from curate.errors import UserError
from curate.loader.shards import OpenFile, OpenFiles, Span, missing_shards, read_spans
from curate.storage import filesystem, join

PIECE = 16 << 20  # bytes
ATTEMPTS = 4  # to fetch one, with pauses of 0.5, 1 and 2 s between them
LOCKS = 64  # files that say who fetches what
ROOM = 0.9  # of the limit that is left full, where pieces have to go
OPEN_PIECES = 16  # a piece that is open takes its room on the disk, also when it was removed
STALE_S = 3600.0  # after which an unfinished piece is one that a killed process left


class CachedShards:
    """`cache` is the folder (None: below the user's cache folder), `cache_gb` the most that it may hold.

    UserError where the first shard is missing, the store's package is not installed, or the folder can't be used.
    """

    def __init__(self, root: str, shards: Sequence[Shard], cache: str | None, cache_gb: float, piece: int = PIECE):
        self.root, self.shards, self.piece = root, shards, piece
        self.limit = int(cache_gb * 2**30)
        self.folder = Path(cache) if cache is not None else _usual_folder()
        if self.limit < 4 * piece:
            raise UserError(f"cache_gb {cache_gb}: a cache of less than {4 * piece / 2**30:.2g} GB fetches without end")
        self.fs, self.path = filesystem(root)
        self._files = OpenFiles(OPEN_PIECES)
        self._check()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock("folder"):
                pass
        except OSError as error:
            raise UserError(f"can't keep shards in {self.folder} ({error.strerror}): say where with cache=") from error

    def read(self, shard: int, spans: Sequence[Span]) -> None:
        """Fills spans of a shard, by its number. OSError or EOFError where it can't be had."""
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
        """Drops the pieces that hold these spans: they may have been damaged on this machine's disk."""
        for offset, view in spans:
            for number in range(offset // self.piece, (offset + len(view) - 1) // self.piece + 1):
                path = self._place(shard, number)
                self._files.forget(str(path))
                path.unlink(missing_ok=True)
        return True

    def _place(self, shard: int, number: int) -> Path:
        return self.folder / f"{self.shards[shard].hash}-{self.piece}-{number}"

    def _get(self, shard: int, number: int) -> OpenFile:
        path = self._place(shard, number)
        with suppress(FileNotFoundError):
            return self._open(path)
        with self._lock(f"{zlib.crc32(path.name.encode()) % LOCKS}"):
            with suppress(FileNotFoundError):  # another has fetched it meanwhile
                return self._open(path)
            content = self._fetch(shard, number)
            part = path.with_name(f".{uuid.uuid4().hex}.part")
            try:
                part.write_bytes(content)
                file = OpenFile(str(part))  # before others can see it, and remove it to make room
                with self._lock("folder"):
                    self._make_room(len(content))
                    part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            self._files.put(str(path), file)
            return file

    def _open(self, path: Path) -> OpenFile:
        file = self._files.get(str(path))
        with suppress(FileNotFoundError):  # it was removed, and is still open
            os.utime(path)
        return file

    def _fetch(self, shard: int, number: int) -> bytes:
        """A piece from the store. OSError where it can't be had, or is not as long as the dataset says."""
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
                    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
                    raise OSError(f"{join(self.root, self.shards[shard].path)}: {said}") from error
                time.sleep(0.5 * 2**attempt)
        if len(content) != end - start:
            raise OSError(f"the store gave {len(content):,} bytes of {path} from {start:,} on, not {end - start:,}")
        return content

    def _make_room(self, size: int) -> None:
        """Removes the pieces that were not read for longest, where this many bytes more would pass the limit."""
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

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Held by one thread of one process at a time; a killed one lets go of it."""
        with open(self.folder / f"{name}.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _check(self) -> None:
        try:
            about = self.fs.info(join(self.path, self.shards[0].path))
        except FileNotFoundError:
            first = join(self.root, self.shards[0].path)
            raise missing_shards(1, len(self.shards), self.root, first) from None
        except Exception as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"can't read {self.root}: {said}") from error
        if about["size"] != self.shards[0].bytes:
            raise UserError(
                f"{join(self.root, self.shards[0].path)} has {about['size']:,} bytes, not {self.shards[0].bytes:,}: "
                "copy the shards again, or make the dataset again"
            )


def _usual_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipmill" / "shards"
