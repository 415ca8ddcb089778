"""What was purged must not come back: stages around the decode that leave out known sources, bytes and spans.

Ids and content hashes are remembered as digests alone, so that the memory itself holds nothing of what was purged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from stages.base import Needs, UnitStage
from stages.decode.sources import file_status, open_source
from stages.frames import SourceError
from stages.unit import PURGED, Clip, Source, Unit

ALL_PURGED = "its clips were purged"  # why a source that is done has none
Span = tuple[float, float]  # seconds: of the first frame, and of the first frame behind the span


def digest(value: str) -> str:
    """128 bits, 32 hex digits, that stand for an id or content hash; it can't be turned back."""
    return hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16, person=b"clipmill").hexdigest()


@dataclass(frozen=True)
class Purged:
    """What is remembered, by digests; picklable.

    `whole` are sources and contents of which nothing may come back, `spans` those of sources and contents of which
    single clips were purged. `sizes` are the bytes of those contents; without `every_size` no file of another size is
    read to be compared.
    """

    whole: Collection[str] = frozenset()
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    sizes: Collection[int] = frozenset()
    every_size: bool = False

    def __bool__(self) -> bool:
        return bool(self.whole or self.spans)

    def holds(self, value: str | None) -> bool:
        """Whether a source id or content hash was purged as a whole."""
        return value is not None and digest(value) in self.whole

    def spans_of(self, *values: str | None) -> tuple[Span, ...]:
        """The purged spans of a source, by its id and content hash."""
        return tuple(span for value in values if value is not None for span in self.spans.get(digest(value), ()))

    @staticmethod
    def overlap(spans: Collection[Span], start: float, end: float) -> bool:
        """Whether a span shares time with one of these; a picture has no length, and shares its one moment."""
        return any((start < last and first < end) or start == first for first, last in spans)

    def may_be(self, size: int | None) -> bool:
        """Whether a file of this size can have purged bytes."""
        return size is None or self.every_size or size in self.sizes


class LeaveOutPurged(UnitStage):
    """Before the decode: a source with purged bytes, under whatever name, is not decoded and no stage sees it."""

    name: ClassVar[str] = "purged"

    def __init__(self, purged: Purged, needs: Needs):
        self.purged, self.needs = purged, needs

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        source = unit.source
        if source is not None:
            source.content_hash = self._content(source)  # told to LeaveOutSpans; the decode finds its own
            if self.purged.holds(source.source_id) or self.purged.holds(source.content_hash):
                unit = unit.failed(PURGED)
        yield unit

    def _content(self, source: Source) -> str | None:
        """The content hash of a file that may have purged bytes by its size; None of any other."""
        try:
            size = source.place.length if source.place is not None else None
            if size is None and (status := file_status(source.uri)) is not None:
                size = status.size
            if not self.purged.may_be(size):
                return None
            with open_source(source.uri, source.place) as file:
                return file.content_hash()
        except SourceError:
            return None  # the decode will say why


class LeaveOutSpans(UnitStage):
    """Behind the decode: clips that share time with a purged clip, and a source that had other bytes a moment ago."""

    name: ClassVar[str] = "purged_spans"

    def __init__(self, purged: Purged, needs: Needs):
        self.purged, self.needs = purged, needs

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        found = unit.scanned.get("content_hash")
        if unit.source is None:
            yield unit
        elif self.purged.holds(found):
            yield unit.failed(PURGED)
        else:
            spans = self.purged.spans_of(unit.source.source_id, unit.source.content_hash or found)
            left = [clip for clip in unit.clips if not self._gone(clip, spans)]
            if len(left) < len(unit.clips) and unit.last:
                unit.scanned["reason"] = unit.scanned.get("reason") or ALL_PURGED
            unit.clips = left
            yield unit

    def _gone(self, clip: Clip, spans: Collection[Span]) -> bool:
        return self.purged.overlap(spans, clip.row["start_s"], clip.row["end_s"])


def without_purged(decode: UnitStage, purged: Purged) -> tuple[UnitStage, ...]:
    """The decode between the stages that leave out what was purged, where anything was."""
    return (LeaveOutPurged(purged, decode.needs), decode, LeaveOutSpans(purged, decode.needs)) if purged else (decode,)
