"""The stage that scans sources: one decode of a source feeds cuts, signals, thumbnails and later stages.

The scan itself (`stages.scan.scan`) runs in a child process that can be killed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import ClassVar

from stages.base import Column, Needs, SettingsError, SourceStage
from stages.cuts import detectors
from stages.cuts.settings import CutSettings
from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.settings import ProbeSettings
from stages.decode.ticks import CLIP_SECONDS, SOURCE_SECONDS
from stages.frames import FrameRequest, SourceError
from stages.measures.registry import measure_classes
from stages.scan.messages import AnswerParser, ScannedClip, ScannedSource, ScanSettings
from stages.scan.training_assertion import read_assertion
from stages.unit import Clip, Row, Source, Unit

SCAN, LOAD = "stages.scan.scan:run", "stages.scan.scan:load_detector"  # what the child runs
GPU_SHARE = 0.1  # of a GPU for each decoder whose detector of cuts runs there
PART_CLIPS = 512  # a long source is passed on in parts of so many clips ...
PART_BYTES = 64 << 20  # ... or of so many bytes of pixels for later stages


class DecodePass(SourceStage):
    """Fills `sources`, `clips` and `thumbnails`, a source at a time, through a child that may be killed."""

    name: ClassVar[str] = "decode"
    gives_frames: ClassVar[bool] = True
    own_signals: ClassVar[Mapping[str, Column]] = {  # beside those of the measures
        "source_s": Column("double", "length that the source's header states", "s"),
        "hdr": Column("string", "what `probe.hdr` did with a source in PQ or HLG; NULL: standard range"),
        "deinterlace": Column("string", "what `probe.deinterlace` was, of a source with interlaced frames"),
    }

    def __init__(
        self,
        probe: ProbeSettings,
        cut: CutSettings,
        measures: tuple[str, ...],
        wants: tuple[FrameRequest, ...] = (),
        c2pa: bool = False,  # whether the training assertion of each source is read too
    ):
        self.c2pa = c2pa
        self.settings = ScanSettings(probe, cut, measures, wants, cut.device)
        self.child: Child | None = None
        if detectors.on_gpu(cut):
            self.needs = Needs(gpus=GPU_SHARE)

    def check(self) -> None:
        """SettingsError where the detector of cuts can't run on this machine."""
        detectors.check(self.settings.cut)
        if self.needs.gpus and self.settings.probe.memory_gb is not None:
            raise SettingsError(
                "probe.memory_gb bounds the addresses of a decoder, and a GPU's driver takes more than any bound: "
                "take it out, or set cut.device: cpu"
            )

    def loads(self) -> tuple[str, ...]:
        detector = self.settings.cut.detector
        return (f"cut detector {detector}",) if detector == "transnetv2" else ()

    def setup(self) -> None:
        self.child = Child(imports=("stages.scan.scan",), memory_gb=self.settings.probe.memory_gb)
        self.child.start()
        if self.settings.cut.detector == "transnetv2":
            for line in self.child.call(LOAD, self.settings.to_json(), lambda message: str(message.fields)):
                raise SettingsError(line)

    def close(self) -> None:
        if self.child is not None:
            self.child.close()

    def signals(self) -> dict[str, Column]:
        found = dict(self.own_signals)
        for measure in measure_classes(self.settings.measures):
            found.update(measure.columns)
        return found

    def versions(self) -> dict[str, str]:
        measured = {measure.name: str(measure.version) for measure in measure_classes(self.settings.measures)}
        return detectors.versions(self.settings.cut) | measured

    def gates(self) -> dict[str, str]:
        gates = {}
        if self.settings.probe.min_seconds:
            least = self.settings.probe.min_seconds
            gates["probe.min_seconds"] = f"media = 'image' OR source_s IS NULL OR {SOURCE_SECONDS} >= {least!r}"
        if self.settings.probe.hdr == "drop":
            gates["probe.hdr"] = "hdr IS NULL"
        if self.settings.cut.min_seconds:
            gates["cut.min_seconds"] = f"media = 'image' OR {CLIP_SECONDS} >= {self.settings.cut.min_seconds!r}"
        return gates

    def undone_sql(self) -> str:
        """Films that were too short to be decoded, and are no longer."""
        least = self.settings.probe.min_seconds
        return f"status = 'done' AND media = 'video' AND frames IS NULL AND duration_s >= {least!r}"

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        """Parts of the unit, in order. A decoder that dies is given one more chance, unless a part has left."""
        began = time.monotonic()
        for chance in (1, 2):
            source: Row = {}
            part = unit.new_part(0)
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
        part.spent(self.name, source.get("cpu_seconds", time.monotonic() - began))
        part.scanned = source
        yield part

    def _parts(self, unit: Unit, source: Row) -> Iterator[Unit]:
        """Parts as a scan fills them; `source` takes the columns of `sources` on the way."""
        assert self.child is not None and unit.source is not None, "setup() was not called"
        probe = self.settings.probe
        part, size = unit.new_part(0), 0
        if self.c2pa:
            source.update(read_assertion(self.child, unit.source.uri, unit.source.place))
        for answer in self.child.call(
            SCAN,
            self.settings.to_json(),
            AnswerParser(self.settings.wants, self.columns()["clips"]),
            source=unit.source.uri,
            place=unit.source.place,
            stall_s=probe.stall_seconds,
            limit_s=probe.limit_seconds,
            most_bytes=self.settings.clip_bytes,
        ):
            if isinstance(answer, ScannedSource):
                source.update(answer.columns)
                continue
            part.clips.append(self._clip(unit.source, source, answer))
            if self.scanned is not None and (length := source.get("duration_s")):
                self.scanned(min(1.0, answer.columns["end_s"] / length))
            size += sum(picture.nbytes for asked in answer.pixels for _, picture in asked)
            if size >= PART_BYTES or len(part.clips) >= PART_CLIPS:
                part.last = False
                yield part
                part, size = unit.new_part(part.part + 1), 0
        yield part

    @staticmethod
    def _failed(unit: Unit, left: Unit, error: Exception) -> Unit:
        """The part that says why: it follows the last one that has left."""
        part = unit.new_part(left.part if left.last else left.part + 1)
        part.failure = str(error)
        return part

    def _clip(self, source: Source, scanned: Row, found: ScannedClip) -> Clip:
        """A clip as the scan found it, with its thumbnail and the frames that later stages asked for."""
        columns = {"media": scanned["media"]} | found.columns
        clip = source.new_clip(found.span.start_pts, found.span.end_pts, columns)
        if found.thumbnail is not None:
            width, height, jpeg = found.thumbnail
            ids = {"clip_id": clip.clip_id, "source_id": source.source_id}
            clip.thumbnail = ids | {"width": width, "height": height, "jpeg": jpeg}
        if found.pixels:
            clip.pixels = dict(zip(self.settings.wants, found.pixels, strict=True))
        return clip
