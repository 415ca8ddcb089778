"""A buffer of the last downscaled frames, by time, in which the search for gradual transitions looks back."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache

import cv2
import numpy as np

from stages.cuts.blend import FLAT, GRAY, SAMPLES, FrameFeatures

CLOSEST = 1 / 64  # frames nearer than this to the one before are not kept, seconds
BRIGHT = 24  # luma above which a pixel is no letterbox
NEAR = 1e-6  # times nearer than this are the same, seconds

_EDGE = np.ones((3, 3), np.uint8)  # the border of a letterbox is half picture, half bar


class FrameHistory:
    """The last frames, oldest first. `frames` and their `seconds` are two lists of one length."""

    def __init__(self) -> None:
        self.frames: list[FrameFeatures] = []
        self.seconds: list[float] = []
        self._bright = np.zeros(GRAY[::-1], np.uint8)  # 255 where a pixel has ever been bright
        self._bright_count = 0
        self._active: np.ndarray | None = None  # where there is picture; None: everywhere

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, pts: int, seconds: float, reduced: np.ndarray) -> None:
        """Call it for every frame; one too near to the frame before is not kept. `reduced` is its `shrink`."""
        frames = self.frames
        if frames:
            if frames[-1].next_pts is None:
                frames[-1].next_pts = pts
            if seconds - frames[-1].seconds < CLOSEST - 1e-4:
                return
        frames.append(FrameFeatures(pts, seconds, reduced))
        self.seconds.append(seconds)

    def forget(self, before: float) -> float:
        """Drops frames before that time; returns the time of the oldest one left."""
        n = bisect_left(self.seconds, before)
        del self.frames[:n], self.seconds[:n]
        return self.seconds[0]

    def at_or_after(self, seconds: float) -> int:
        """Index of the first frame at or after a time; the count of frames where there is none."""
        return bisect_left(self.seconds, seconds - NEAR)

    def at_or_before(self, seconds: float) -> int:
        """Index of the last frame at or before a time; 0 where there is none."""
        return max(0, bisect_right(self.seconds, seconds + NEAR) - 1)

    def pts_after(self, k: int) -> int:
        """The PTS of the frame of the source right after frame k; that of frame k where none has come yet."""
        frame = self.frames[k]
        return frame.pts if frame.next_pts is None else frame.next_pts

    def time_before(self, seconds: float) -> float:
        """The time of the last frame before a time."""
        return self.seconds[max(0, self.at_or_after(seconds) - 1)]

    def tiny(self, chosen: list[int]) -> np.ndarray:
        """(k, 432) float32: the tiny pictures of some frames."""
        return np.array([self.frames[i].tiny for i in chosen])

    def energies(self, chosen: list[int]) -> list[float]:
        return [self.frames[i].energy for i in chosen]

    def flat_run(self, k: int) -> tuple[int, int]:
        """(first, last) index of the run of flat frames that frame k is in; (k, k - 1) where it is not flat."""
        if k >= len(self.frames) or not self.flat(k):
            return k, k - 1
        first = last = k
        while first > 0 and self.flat(first - 1):
            first -= 1
        while last + 1 < len(self.frames) and self.flat(last + 1):
            last += 1
        return first, last

    def flat_after(self, k: int, seconds: float) -> int:
        """The first flat frame at most so many seconds after frame k; k where there is none."""
        until = self.at_or_after(self.seconds[k] + seconds)
        return next((i for i in range(k, min(until, len(self.frames))) if self.flat(i)), k)

    def flat_before(self, k: int, seconds: float) -> int:
        """The last flat frame at most so many seconds before frame k; k where there is none."""
        since = self.at_or_after(self.seconds[k] - seconds)
        return next((i for i in range(k, since - 1, -1) if self.flat(i)), k)

    def flat(self, k: int) -> bool:
        """True where frame k is one even tone."""
        return self.deviation(k) < FLAT

    def deviation(self, k: int) -> float:
        """Standard deviation of the luma of frame k, without the letterbox (pixels that were never bright)."""
        frame = self.frames[k]
        if frame.deviation is None:
            gray = frame.gray
            self._note_bright(gray)
            frame.deviation = float(cv2.meanStdDev(gray, mask=self._active)[1][0, 0])
        return frame.deviation

    def _note_bright(self, gray: np.ndarray) -> None:
        if self._bright_count == gray.size:
            return
        bright = cv2.threshold(gray, BRIGHT, 255, cv2.THRESH_BINARY)[1]
        cv2.bitwise_or(self._bright, bright, dst=self._bright)
        count = cv2.countNonZero(self._bright)
        if count != self._bright_count:
            self._bright_count = count
            active = cv2.erode(self._bright, _EDGE, borderValue=255)
            self._active = active if gray.size // 8 <= cv2.countNonZero(active) < gray.size else None


def spread(first: int, last: int, most: int = SAMPLES) -> list[int]:
    """At most `most` indices from first to last, evenly, both ends among them."""
    return [first + step for step in _steps(last - first, most)]


@lru_cache(maxsize=1024)
def _steps(length: int, most: int) -> tuple[int, ...]:
    count = min(most, length + 1)
    return tuple(round(i * length / (count - 1)) for i in range(count))
