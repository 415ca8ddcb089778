"""The decode pass: one decode of a source feeds cuts, signals, thumbnails and later stages.

`scan` is the pass itself and runs in a killable child process; `DecodePass` is the stage around it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from stages.base import Stage
from stages.cuts.settings import CUT_VERSION, CutSettings
from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.settings import ProbeSettings
from stages.frames import FrameRequest, SourceError, Span
from stages.unit import clip_id

SCAN = "stages.scan.scan:scan"  # what the child runs
THUMBNAIL = FrameRequest((0.5,), 320)
PART_CLIPS = 512  # a long source leaves in parts of so many clips …
PART_BYTES = 64 << 20  # … or of so many bytes of asked-for pixels


@dataclass(frozen=True)
class ScanSettings:
    """Everything that decides what a scan yields."""

    probe: ProbeSettings
    cut: CutSettings
    measures: tuple[str, ...]
    wants: tuple[FrameRequest, ...] = ()


@dataclass
class Found:
    """One clip as the scan yields it: its columns, its thumbnail (JPEG), the frames asked for.

    `pixels` holds, for each FrameRequest, a list of (seconds, picture (h, w, 3) uint8 BGR).
    """

    span: Span
    columns: dict[str, Any]
    thumbnail: tuple[int, int, bytes] | None  # width, height, JPEG
    pixels: list[list[tuple[float, np.ndarray]]] = field(default_factory=list)


class DecodePass(Stage):
    """Fills `sources`, `clips` and `thumbnails`, a source at a time, through a child that may be killed."""

    name: ClassVar[str] = "decode"

    def __init__(
        self,
        probe: ProbeSettings,
        cut: CutSettings,
        measures: tuple[str, ...],
        wants: tuple[FrameRequest, ...] = (),
    ):
        self.settings = ScanSettings(probe, cut, measures, wants)
        self.child: Child | None = None

    def setup(self) -> None:
        self.child = Child(imports=("stages.scan.scan",), memory_gb=self.settings.probe.memory_gb)
        self.child.start()

    def close(self) -> None:
        if self.child is not None:
            self.child.close()

    def columns(self) -> dict[str, dict[str, str]]:
        from stages.measures.registry import MEASURES

        found: dict[str, str] = {"source_s": "double"}  # the length that the source's header claims
        for name in self.settings.measures:
            found.update(MEASURES[name].columns)
        return {"clips": found}

    def versions(self) -> dict[str, str]:
        from stages.measures.registry import MEASURES

        return {"cut": str(CUT_VERSION)} | {name: str(MEASURES[name].version) for name in self.settings.measures}

    def gates(self) -> dict[str, str]:
        gates = {}
        if self.settings.probe.min_seconds:
            least = self.settings.probe.min_seconds
            gates["probe.min_seconds"] = f"media = 'image' OR source_s IS NULL OR source_s >= {least!r}"
        if self.settings.cut.min_seconds:
            gates["cut.min_seconds"] = f"media = 'image' OR end_s - start_s >= {self.settings.cut.min_seconds!r}"
        return gates

    def __call__(self, unit: Any) -> Iterator[Any]:
        """Parts of the unit, in order. A decoder that dies is given one more chance, unless a part has left."""
        began = time.monotonic()
        for chance in (1, 2):
            source: dict[str, Any] = {}
            part = self._part(unit, 0)
            try:
                for part in self._parts(unit, source):
                    if not part.last:
                        yield part
                break
            except ChildDied as error:
                again = chance == 1 and part.part == 0 and part.last
                part = self._failed(unit, part, error)
                if not again:
                    break
            except (SourceError, ChildError, ChildTimeout) as error:
                part = self._failed(unit, part, error)
                break
        part.seconds[self.name] = source.get("cpu_seconds", time.monotonic() - began)
        part.rows["sources"] = [{**unit.entry, **source}]
        yield part

    def _parts(self, unit: Any, source: dict[str, Any]) -> Iterator[Any]:
        """Parts as a scan fills them; `source` takes the columns of `sources` on the way."""
        assert self.child is not None, "setup() was not called"
        probe = self.settings.probe
        part, size = self._part(unit, 0), 0
        for message in self.child.call(
            SCAN, unit.entry["uri"], self.settings, stall_s=probe.stall_seconds, limit_s=probe.limit_seconds
        ):
            if isinstance(message, dict):
                source.update(message)
                continue
            self._add(part, unit, source, message)
            size += sum(picture.nbytes for asked in message.pixels for _, picture in asked)
            if size >= PART_BYTES or len(part.rows["clips"]) >= PART_CLIPS:
                part.last = False
                yield part
                part, size = self._part(unit, part.part + 1), 0
        yield part

    def _failed(self, unit: Any, left: Any, error: Exception) -> Any:
        """The part that says why: it follows the last one that has left."""
        part = self._part(unit, left.part if left.last else left.part + 1)
        part.failure = str(error)
        return part

    @staticmethod
    def _part(unit: Any, number: int) -> Any:
        return type(unit)(unit.unit_id, unit.entry, rows={"clips": [], "thumbnails": []}, part=number)

    def _add(self, part: Any, unit: Any, source: dict[str, Any], found: Found) -> None:
        owner = unit.entry["source_id"]
        clip = clip_id(owner, found.span.start_pts, found.span.end_pts)
        part.rows["clips"].append(
            {"clip_id": clip, "source_id": owner, "uri": unit.entry["uri"], "media": source["media"]} | found.columns
        )
        if found.thumbnail is not None:
            width, height, jpeg = found.thumbnail
            part.rows["thumbnails"].append(
                {"clip_id": clip, "source_id": owner, "width": width, "height": height, "jpeg": jpeg}
            )
        if found.pixels:
            part.pixels[clip] = dict(zip(self.settings.wants, found.pixels, strict=True))
