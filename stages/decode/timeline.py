"""Puts decoded frames in strictly rising PTS, sums packet sizes by PTS, and says how much of a video is missing."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import av
import numpy as np

from stages.decode.frame_times import Timed


class Timeline:
    """Passes decoded frames on in strictly rising PTS and remembers where they begin and end.

    A frame without a time, or at a time already passed, is left out and counted. One wrong stamp far ahead would make
    every later frame "already passed", so a frame after a leap waits for the next one to confirm it.

    A raw stream has no times at all: with a `period` (ticks) frame n is at n periods.
    """

    def __init__(self, leap: int, period: int | None = None):
        self.leap = leap  # ticks; a longer step forward has to be confirmed
        self.period = period
        self.first_pts: int | None = None
        self.last_pts: int | None = None
        self.left_out = 0
        self.last_step = 0  # ticks from the last frame but one to the last
        self._last_duration = 0

    def ordered(self, frames: Iterable[Timed]) -> Iterator[tuple[int, av.VideoFrame]]:
        """(pts, frame) of each frame that has a place in time."""
        waiting: tuple[int, av.VideoFrame] | None = None
        for number, (pts, frame) in enumerate(frames):
            if pts is None and self.period is not None:
                pts = number * self.period
            if pts is None:
                self.left_out += 1
                continue
            if waiting is not None:
                if pts == waiting[0]:
                    self.left_out += 1
                    continue
                if pts > waiting[0]:
                    yield self._placed(*waiting)
                else:
                    self.left_out += 1
                waiting = None
            last = self.last_pts
            if last is None or pts - last > self.leap:
                waiting = (pts, frame)
            elif pts <= last:
                self.left_out += 1
            else:
                yield self._placed(pts, frame)
        if waiting is not None:
            yield self._placed(*waiting)

    def _placed(self, pts: int, frame: av.VideoFrame) -> tuple[int, av.VideoFrame]:
        if self.last_pts is None:
            self.first_pts = pts
        else:
            self.last_step = pts - self.last_pts
        self.last_pts = pts
        self._last_duration = frame.duration or 0
        return pts, frame

    def end_pts(self, usual_step: int) -> int | None:
        """The PTS at which the last frame so far ends: by its own duration if sane, else the last step.

        `usual_step` (ticks) is used for a video of one frame.
        """
        if self.last_pts is None:
            return None
        step = self.last_step or usual_step
        sane = 0 < self._last_duration <= max(10 * step, self.leap)
        return self.last_pts + max(1, self._last_duration if sane else step)


class PacketSizes:
    """PTS and sizes of the packets so far, 16 bytes each, until they are taken."""

    def __init__(self) -> None:
        self._pts = array("q")
        self._size = array("q")

    def add(self, pts: int | None, size: int) -> None:
        if pts is not None:
            self._pts.append(pts)
            self._size.append(size)

    def take(self, start_pts: int, end_pts: int) -> int:
        """Bytes of the packets with start_pts <= PTS < end_pts; forgets every packet before end_pts."""
        pts = np.array(self._pts, np.int64)
        size = np.array(self._size, np.int64)
        total = int(size[(pts >= start_pts) & (pts < end_pts)].sum())
        later = pts >= end_pts
        self._pts = array("q", pts[later].tobytes())
        self._size = array("q", size[later].tobytes())
        return total


# Commands that give several takes in one file one time line. Copied, a program stream would lose all but the first.
_MENDED_BY = {"mpegts": "ffmpeg -i FILE -map 0:v -c copy NEW.mkv", "mpeg": "ffmpeg -i FILE NEW.mp4"}


def backward(left_out: int, container: str) -> str:
    """The reason for a video whose time runs backward, in which a time does not say which frame is meant."""
    mended = _MENDED_BY.get(container)
    advice = f" (several takes in one file? {mended} gives them one time line)" if mended else ""
    return f"time stamps missing or running backward: {left_out} frames left out{advice}"


def shortfall(decoded_s: float, stated_s: float | None) -> str | None:
    """A line when clearly less was decoded than the header states, else None.

    Clearly: by more than 5 %, and by more than 1 s, or a quarter where the whole is shorter than 4 s.
    """
    if stated_s is None or stated_s - decoded_s <= max(min(1.0, 0.25 * stated_s), 0.05 * stated_s):
        return None
    return f"truncated: {decoded_s:.1f} s of {stated_s:.1f} s decoded"
