"""The frames of clips that the catalog knows already, fetched by seeking; the counterpart of the decode pass."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from fractions import Fraction
from typing import Any, ClassVar

from stages.base import Stage, one_line
from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.seek_reader import ClipSpan
from stages.decode.settings import FetchSettings
from stages.frames import FrameRequest, SourceError

FETCH = "stages.decode.seek_reader:fetch"  # what the child runs
AHEAD_BYTES = 256 << 20  # pixels that may wait for the stages after this one …
AHEAD_UNITS = 64  # … and units


class FetchFrames(Stage):
    """Gives the clips of a unit the frames that later stages want, through a child that may be killed.

    A unit's clips are of one source (`entry["uri"]`; `entry["bytes"]`, where it is there, is the size the file
    had when it was scanned). A clip without its frames is `lost`, with the reason; the unit goes on.
    """

    name: ClassVar[str] = "seek"

    def __init__(self, wants: tuple[FrameRequest, ...], settings: FetchSettings | None = None):
        self.asked = tuple(dict.fromkeys(wants))
        self.settings = settings or FetchSettings()
        self.child: Child | None = None
        self._leaving = False
        self.decoded = 0  # frames decoded so far, those on the way to the wanted ones among them

    def setup(self) -> None:
        self.child = Child(imports=("stages.decode.seek_reader",), memory_gb=self.settings.memory_gb)
        self.child.start()

    def close(self) -> None:
        if self.child is not None:
            self.child.close()

    def __call__(self, unit: Any) -> Iterator[Any]:
        """A decoder that dies is given one more chance with the clips that are left; one that hangs is not."""
        began = time.monotonic()
        left = {row["clip_id"]: _span(row) for row in _chosen(unit)}
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
        unit.lost.update(dict.fromkeys(left, reason))
        unit.seconds.setdefault(self.name, time.monotonic() - began)
        yield unit

    def stream(self, units: Iterable[Any]) -> Iterator[Any]:
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
    def _oldest(ahead: deque[tuple[Future, int]]) -> Any:
        unit = ahead[0][0].result()
        ahead.popleft()
        return unit

    def _one(self, unit: Any) -> Any:
        if unit.failure is not None:
            return unit
        try:
            (unit,) = self(unit)
            return unit
        except Exception as error:
            return unit.failed(f"{self.name}: {one_line(error)}"[:500])

    def _fetch(self, unit: Any, left: dict[str, ClipSpan]) -> None:
        """Takes clips out of `left` as they are answered."""
        assert self.child is not None, "setup() was not called"
        limits = {"stall_s": self.settings.stall_seconds, "limit_s": self.settings.limit_seconds}
        size = unit.entry.get("bytes")
        spans = list(left.values())
        for message in self.child.call(
            FETCH, unit.entry["uri"], spans, self.asked, size, self.settings.threads, **limits
        ):
            if isinstance(message, dict):
                self.decoded += message["decoded"]
                unit.seconds[self.name] = unit.seconds.get(self.name, 0.0) + message["cpu_seconds"]
                continue
            clip, found = message
            del left[clip]
            if isinstance(found, str):
                unit.lost[clip] = found
            else:
                unit.pixels.setdefault(clip, {}).update(zip(self.asked, found, strict=True))

    def _most_bytes(self, unit: Any) -> int:
        """Pixels that a unit's clips can hold at most."""
        each = sum(3 * request.long_side**2 * len(request.positions) for request in self.asked)
        return each * len(_chosen(unit))


def _chosen(unit: Any) -> list[dict[str, Any]]:
    if unit.failure is not None:
        return []
    return [row for row in unit.clips if unit.passing is None or row["clip_id"] in unit.passing]


def _span(row: dict[str, Any]) -> ClipSpan:
    base = Fraction(row["time_base_num"], row["time_base_den"])
    return ClipSpan(row["clip_id"], row["start_pts"], row["end_pts"], base)
