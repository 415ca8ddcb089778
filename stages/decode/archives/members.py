"""Opens members of archives, in place. Indexes of archives and unpacked row groups are kept for the next member."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.decode.archives import tar, zip
from stages.decode.archives.files import FileStatus, OpenFile, open_file
from stages.decode.archives.index import Index, Member
from stages.frames import SourceError
from stages.unit import Place

if TYPE_CHECKING:
    from stages.decode.archives.parquet import Rows

INDEXES = 64  # archives whose index is kept
UNPACKED_GROUPS = 8  # row groups that are kept unpacked ...
UNPACKED_BYTES = 8 << 30  # ... of so many bytes at most, the last one apart


@dataclass
class Opened:
    """`length` bytes from `start` on of an open file, which its taker closes."""

    file: OpenFile
    start: int
    length: int


def open_member(archive: str, name: str, place: Place | None = None) -> Opened:
    """Opens a member by its archive's URI and its name; `place` saves looking for it. Raises SourceError."""
    file = open_file(archive)
    try:
        if archive.lower().endswith(".parquet"):
            return _parquet_row(file, archive, name)
        return _member(file, archive, name, place)
    except BaseException:
        file.close()
        raise


def index(file: OpenFile, archive: str, wanted: Callable[[str], bool] = lambda name: False) -> Index:
    """The members of an open tar or zip, with the texts that are wanted."""
    read = zip.zip_index if archive.lower().endswith(".zip") else tar.tar_index
    return read(file, wanted)


def parquet_rows(file: OpenFile, archive: str) -> Rows:
    """An open Parquet file, whose footer is read once. Raises SourceError."""
    from stages.decode.archives.parquet import Rows  # Arrow takes a while to load

    return Rows(file, _RECENT_INDEXES.get((archive, file.version), lambda: Rows(file).footer))


def member_status(archive: str, name: str, modified: float | None) -> FileStatus | None:
    """Size of a member, None for a row, and the time given; None where there is none. Raises SourceError."""
    with open_file(archive) as file:
        if archive.lower().endswith(".parquet"):
            return FileStatus(None, modified) if _row(parquet_rows(file, archive), name) is not None else None
        member = _index(file, archive).members.get(name)
        return FileStatus(member.length, modified) if member is not None else None


def refusal(archive: str) -> str:
    """Why an archive as a whole is no source. Raises SourceError where it can't be opened."""
    with open_file(archive) as file:
        if archive.lower().endswith(".parquet"):
            if parquet_rows(file, archive).videos is None:
                return "a Parquet file without a column of videos"
            return "a Parquet file of videos, whose rows are the sources: run again to list them"
        found = _index(file, archive)
        ends = f"ends within its member {found.cut_off}" if found.cut_off is not None else None
        return found.fault or ends or "an archive, whose members are the sources: run again to list them"


def _member(file: OpenFile, archive: str, name: str, place: Place | None) -> Opened:
    member: Member | None = None
    if place is not None and place.offset is not None and place.length is not None and archive.lower()[-4:] == ".tar":
        member = tar.check_header(file, place.offset, place.length, name)
    if member is None:
        found = _index(file, archive)
        member = found.members.get(name)
        if member is None:
            raise SourceError(found.fault or f"the archive has no member {name!r}")
    if member.refusal is not None:
        raise SourceError(member.refusal)
    if member.packed is not None:
        descriptor = zip.inflated(file, member)
        file.close()
        return Opened(OpenFile.unpacked(descriptor, member.length, file.modified), 0, member.length)
    start = member.start if member.start is not None else zip.data_start(file, member)
    if start + member.length > file.size:
        raise SourceError(
            f"the archive ends within it: {max(0, file.size - start)} of its {member.length} bytes are there"
        )
    return Opened(file, start, member.length)


def _parquet_row(file: OpenFile, archive: str, name: str) -> Opened:
    from stages.decode.archives.parquet import unpack

    rows = parquet_rows(file, archive)
    videos, number = rows.videos, _row(rows, name)
    if videos is None or number is None:
        have = f"{videos.rows} rows of {videos.column!r}" if videos is not None else "no column of videos"
        raise SourceError(f"the file has no row {name!r} but {have}")
    group = videos.group(number)
    with _UNPACKED.lock:
        unpacked = _UNPACKED.get((archive, file.version, group), lambda: unpack(rows, group))
        span = unpacked.spans[number - videos.first_rows[group]]
        if span is None:
            raise SourceError("the row has no video: its bytes are null")
        descriptor = os.dup(unpacked.descriptor)
    file.close()
    return Opened(OpenFile.unpacked(descriptor, unpacked.bytes, file.modified), *span)


def _row(rows: Rows, name: str) -> int | None:
    """The number in COLUMN/NUMBER, None where there is no such row."""
    column, _, number = name.rpartition("/")
    videos = rows.videos
    if videos is None or column != videos.column or not number.isdecimal() or int(number) >= videos.rows:
        return None
    return int(number)


def _index(file: OpenFile, archive: str) -> Index:
    return _RECENT_INDEXES.get((archive, file.version), lambda: index(file, archive))


class _Recent:
    """The last few things that were made, by key; threads may share it."""

    def __init__(self, most: int, most_bytes: int | None = None):
        self.lock = threading.RLock()
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What was made for the key; made now, by one thread at a time, where it is not kept."""
        with self.lock:
            if key not in self._kept:
                self._kept[key] = make()
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and self._is_full():
                _, old = self._kept.popitem(last=False)
                if self._most_bytes is not None:
                    old.close()
            return self._kept[key]

    def _is_full(self) -> bool:
        if len(self._kept) > self._most:
            return True
        return self._most_bytes is not None and sum(kept.bytes for kept in self._kept.values()) > self._most_bytes


_RECENT_INDEXES = _Recent(INDEXES)
_UNPACKED = _Recent(UNPACKED_GROUPS, UNPACKED_BYTES)
