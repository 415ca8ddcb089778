"""The stage that fetches frames of clips that the catalog holds already, by seeking in their sources."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from fractions import Fraction
from typing import ClassVar

from stages.base import UnitStage, one_line
from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.fetch_messages import ClipSpan, FetchCost, FetchRequest, parse_answer
from stages.decode.messages import picture_bytes
from stages.decode.rendering import Rendering
from stages.decode.settings import FetchSettings
from stages.frames import FrameRequest, SourceError
from stages.unit import Clip, Row, Unit

FETCH = "stages.decode.fetch:run"  # what the child runs
AHEAD_BYTES = 256 << 20  # pixels that may wait for the stages after this one …
AHEAD_UNITS = 64  # … and units


class FetchFrames(UnitStage):
    """Gives the clips of a unit the frames that later stages want, through a child that may be killed.

    A unit's clips are of one source. A clip without its frames says why in `lost`; the unit goes on.
    """

    name: ClassVar[str] = "seek"

    def __init__(self, wants: tuple[FrameRequest, ...], settings: FetchSettings | None = None):
        self.asked = tuple(dict.fromkeys(wants))
        self.settings = settings or FetchSettings()
        self.child: Child | None = None
        self._leaving = False
        self.decoded = 0  # frames decoded so far, those on the way to the wanted ones among them

    def setup(self) -> None:
        self.child = Child(imports=("stages.decode.fetch",), memory_gb=self.settings.memory_gb)
        self.child.start()

    def close(self) -> None:
        if self.child is not None:
            self.child.close()

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        """A decoder that dies is given one more chance with the clips that are left; one that hangs is not."""
        began = time.monotonic()
        left = {clip.clip_id: clip for clip in _passing(unit)}
        reason = "the decoder gave no answer for it"
        for _ in range(2):
            try:
                if left and not self._leaving:
                    self._fetch(unit, left)
                break
            except ChildDied as error:
                reason = str(error)
            except (SourceError, ChildError, ChildTimeout) as error:
                reason = str(error)
                break
        for clip in left.values():
            clip.lost = reason
        unit.seconds.setdefault(self.name, time.monotonic() - began)
        yield unit

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Units in their order. The child fetches those to come while later stages work on those before."""
        worker = ThreadPoolExecutor(1, thread_name_prefix="seek")
        ahead: deque[tuple[Future, int]] = deque()
        self._leaving = False
        try:
            for unit in units:
                size = self._most_bytes(unit)
                while ahead and (len(ahead) >= AHEAD_UNITS or size + sum(one for _, one in ahead) > AHEAD_BYTES):
                    yield self._oldest(ahead)
                ahead.append((worker.submit(self._one, unit), size))
                while ahead and ahead[0][0].done():
                    yield self._oldest(ahead)
            while ahead:
                yield self._oldest(ahead)
        finally:
            self._leaving = True  # nobody wants the rest: the child must not keep the thread waiting
            worker.shutdown(wait=False, cancel_futures=True)
            while running := [future for future, _ in ahead if future.running()]:
                if self.child is not None:
                    self.child.interrupt()
                wait(running, timeout=0.1)
            self._leaving = False

    @staticmethod
    def _oldest(ahead: deque[tuple[Future, int]]) -> Unit:
        unit = ahead[0][0].result()
        ahead.popleft()
        return unit

    def _one(self, unit: Unit) -> Unit:
        if unit.failure is not None:
            return unit
        try:
            (unit,) = self(unit)
            return unit
        except Exception as error:
            return unit.failed(f"{self.name}: {one_line(error)}")

    def _fetch(self, unit: Unit, left: dict[str, Clip]) -> None:
        """Takes clips out of `left` as they are answered."""
        assert self.child is not None, "setup() was not called"
        source = next(iter(left.values())).source
        spans = [_span(clip.row) for clip in left.values()]
        rendering = Rendering.of_clip(next(iter(left.values())).row)
        request = FetchRequest(spans, self.asked, source.bytes, self.settings.threads, rendering)
        for answer in self.child.call(
            FETCH,
            request.to_json(),
            lambda message: parse_answer(message, left, self.asked),
            source=source.uri,
            place=source.place,
            stall_s=self.settings.stall_seconds,
            limit_s=self.settings.limit_seconds,
            most_bytes=picture_bytes(self.asked),
        ):
            if isinstance(answer, FetchCost):
                self.decoded += answer.decoded
                unit.spent(self.name, answer.cpu_seconds)
                continue
            clip = left.pop(answer.clip_id)
            if isinstance(answer.pictures, str):
                clip.lost = answer.pictures
            else:
                clip.pixels.update(zip(self.asked, answer.pictures, strict=True))

    def _most_bytes(self, unit: Unit) -> int:
        """Pixels that a unit's clips can hold at most."""
        return picture_bytes(self.asked) * len(_passing(unit))


def _passing(unit: Unit) -> list[Clip]:
    """The clips that frames are fetched for; none of a failed unit."""
    return [clip for clip in unit.clips if unit.failure is None and clip.passing]


def _span(row: Row) -> ClipSpan:
    base = Fraction(row["time_base_num"], row["time_base_den"])
    return ClipSpan(row["clip_id"], row["start_pts"], row["end_pts"], base)
