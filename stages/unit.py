"""What travels through the stages: sources, clips, and units of them, with the ids that name them."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import xxhash

from stages.frames import FrameRequest, Picture

Row = dict[str, Any]  # column -> value, of one row of a table
PURGED = "purged: its bytes, or its name, are those of a source that was purged"  # of a unit that leaves no row


class Place(NamedTuple):
    """Where a listing, or the catalog, saw a member: a shortcut to it, which is checked when it is taken.

    `offset` is where the member's header starts in a tar and `length` that of its data, both in bytes; None where
    there is no such shortcut. Members with the same `together` are read at once, so one worker should take them.
    """

    offset: int | None = None
    length: int | None = None
    together: str = ""

    @classmethod
    def known(cls, offset: int | None, length: int | None) -> Place | None:
        """By the columns archive_offset and bytes of `sources`."""
        return cls(offset, length) if offset is not None else None


@dataclass
class Source:
    """One input video, as the listing or the catalog names it."""

    source_id: str
    uri: str  # where it lies
    columns: Row = field(default_factory=dict)  # what the manifest says of it: caption, licence, ...
    bytes: int | None = None  # its size and content when it was scanned; None before that
    content_hash: str | None = None
    known_as: str | None = None  # the URI that its id is the hash of, where that is another one
    place: Place | None = None  # where it was seen in its archive

    def new_clip(self, start_pts: int, end_pts: int, columns: Row) -> Clip:
        """A clip that a stage found in this source; `columns` are those of `clips`, ids and uri apart."""
        ids = {"clip_id": clip_id(self.source_id, start_pts, end_pts), "source_id": self.source_id, "uri": self.uri}
        return Clip(ids | {"start_pts": start_pts, "end_pts": end_pts} | columns, self, new=True)


@dataclass
class Clip:
    """A span of a source, with what is known of it so far.

    `row` has the columns of `clips` and, for clips that the catalog holds, of every table joined to it. `results`
    are the rows that stages of this run made, by table; `done` names the tables that have a row of it already.
    `pixels` are the frames that stages asked for, by request; `frames` are those of the stage that scores the clip now;
    `lost` says why there are none. `features` passes what one model stage computed to the next in the same worker.
    `earlier` has columns of the clip's row in a shard stage's table where its latents can stay, and only what stands
    beside them has changed.
    """

    row: Row
    source: Source
    new: bool = False  # made by this run's decode pass: its row is to be written too
    thumbnail: Row | None = None
    pixels: dict[FrameRequest, list[Picture]] = field(default_factory=dict)
    frames: list[Picture] = field(default_factory=list)
    lost: str | None = None
    features: dict[Any, Any] = field(default_factory=dict)
    results: dict[str, Row] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    passing: bool = True  # no gate so far dropped it
    redone: bool = False  # the catalog holds an older row that this run's supersedes
    earlier: Row = field(default_factory=dict)

    @property
    def clip_id(self) -> str:
        return self.row["clip_id"]

    def lacks(self, table: str) -> bool:
        """Whether a stage still has to make this clip's row of a table."""
        return self.passing and table not in self.done and table not in self.results

    def drop_frames(self) -> None:
        self.pixels, self.frames, self.features = {}, [], {}


@dataclass
class Unit:
    """The atom of work: one source to scan, or a group of clips that the catalog holds.

    A long unit may leave a stage in several parts with the same `unit_id`: `part` counts them, `last` marks the
    final one. All parts are committed together, or none. `scanned` has the columns of `sources` that the decode pass
    read (on the last part). `progress` counts clips that a part without clips reports as finished.
    """

    unit_id: str
    clips: list[Clip] = field(default_factory=list)
    source: Source | None = None  # of a unit that is to be scanned
    scanned: Row = field(default_factory=dict)
    part: int = 0
    last: bool = True
    attempt: int = 0  # how often an engine began it before, because a worker or node was lost
    failure: str | None = None  # why the whole unit failed
    seconds: dict[str, float] = field(default_factory=dict)  # CPU seconds by stage
    progress: int = 0
    redone: bool = False  # rows of an earlier run are superseded by this unit's

    @property
    def together(self) -> str:
        """Units of one such text, if it is not empty, are read from an archive at once."""
        return self.source.place.together if self.source is not None and self.source.place is not None else ""

    def lacking(self, table: str) -> Iterator[Clip]:
        """The clips that still need a row of a table; none of a failed unit."""
        return (clip for clip in self.clips if self.failure is None and clip.lacks(table))

    def new_part(self, number: int) -> Unit:
        """A part of this unit without clips."""
        return Unit(self.unit_id, source=self.source, part=number, attempt=self.attempt, redone=self.redone)

    def failed(self, reason: str) -> Unit:
        """What is left of the unit when a stage could not take it."""
        kept = [] if self.source is not None else self.clips
        for clip in kept:
            clip.drop_frames()
        return replace(self, clips=kept, failure=reason[:500], progress=0)

    def spent(self, stage: str, seconds: float) -> None:
        """Adds CPU seconds that a stage spent on this unit."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def cells_hash(columns: Row, names: Sequence[str]) -> str | None:
    """Hash of the manifest's cells in these columns, 32 hex digits; None without columns.

    `curate.run.manifests.clip_cells` computes the same in SQL, where a cell is cast to a text.
    """
    if not names:
        return None
    cells = [_as_text(columns.get(name)) for name in names]
    return _md5(",".join("" if text is None else _md5(text) for text in cells))


def _as_text(cell: Any) -> str | None:
    """A cell as DuckDB casts it to a text."""
    if isinstance(cell, datetime.datetime):
        text = cell.replace(tzinfo=None).isoformat(" ")
        return text.rstrip("0") if "." in text else text
    return str(cell).lower() if isinstance(cell, bool) else None if cell is None else str(cell)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "backslashreplace"), usedforsecurity=False).hexdigest()


def source_id(uri: str) -> str:
    """128-bit hash of the canonical URI, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(uri.encode("utf-8", "surrogateescape"))


def clip_id(source: str, start_pts: int, end_pts: int) -> str:
    """128-bit hash of a source id and a span in PTS, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(f"{source}:{start_pts}:{end_pts}".encode())
