"""The frames that the search for transitions remembers, by time: tiny pictures, and which of them are flat."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache

import cv2
import numpy as np

from stages.cuts.blend import FLAT, GRAY, SAMPLES, Look

CLOSEST = 1 / 64  # frames nearer than this to the one before are not remembered, seconds
BRIGHT = 24  # luma above which a pixel is no letterbox
NEAR = 1e-6  # times less far apart are the same, seconds

_EDGE = np.ones((3, 3), np.uint8)  # the border of a letterbox is half picture, half bar


class Recall:
    """`looks` and their `seconds`: two lists of one length, oldest first."""

    def __init__(self):
        self.looks: list[Look] = []
        self.seconds: list[float] = []
        self._bright = np.zeros(GRAY[::-1], np.uint8)  # 255 where a pixel has ever been bright
        self._bright_count = 0
        self._active: np.ndarray | None = None  # where there is picture; None: everywhere

    def __len__(self) -> int:
        return len(self.looks)

    def add(self, pts: int, seconds: float, middle: np.ndarray) -> None:
        """To be called for every frame; one too near to the one before is not remembered."""
        looks = self.looks
        if looks:
            if looks[-1].after is None:
                looks[-1].after = pts
            if seconds - looks[-1].seconds < CLOSEST - 1e-4:
                return
        looks.append(Look(pts, seconds, middle))
        self.seconds.append(seconds)

    def forget(self, before: float) -> float:
        """Drop what is older; the time of what is oldest then."""
        n = bisect_left(self.seconds, before)
        del self.looks[:n], self.seconds[:n]
        return self.seconds[0]

    def at_or_after(self, seconds: float) -> int:
        """Index of the first frame at or after a time; the count of frames where there is none."""
        return bisect_left(self.seconds, seconds - NEAR)

    def at_or_before(self, seconds: float) -> int:
        """Index of the last frame at or before a time; 0 where there is none."""
        return max(0, bisect_right(self.seconds, seconds + NEAR) - 1)

    def time_before(self, seconds: float) -> float:
        """The time of the last frame before a time."""
        return self.seconds[max(0, self.at_or_after(seconds) - 1)]

    def tiny(self, chosen: list[int]) -> np.ndarray:
        """(k, 432) float32: the tiny pictures of some frames."""
        return np.array([self.looks[i].tiny for i in chosen])

    def energies(self, chosen: list[int]) -> list[float]:
        return [self.looks[i].energy for i in chosen]

    def flat_run(self, k: int) -> tuple[int, int]:
        """(first, last) index of the run of flat frames that frame k is in; (k, k - 1) where it is not
        flat.
        """
        if k >= len(self.looks) or not self.flat(k):
            return k, k - 1
        first = last = k
        while first > 0 and self.flat(first - 1):
            first -= 1
        while last + 1 < len(self.looks) and self.flat(last + 1):
            last += 1
        return first, last

    def flat_after(self, k: int, seconds: float) -> int:
        """The first flat frame at most so much later than frame k; k where there is none."""
        until = self.at_or_after(self.seconds[k] + seconds)
        return next((i for i in range(k, min(until, len(self.looks))) if self.flat(i)), k)

    def flat_before(self, k: int, seconds: float) -> int:
        """The last flat frame at most so much earlier than frame k; k where there is none."""
        since = self.at_or_after(self.seconds[k] - seconds)
        return next((i for i in range(k, since - 1, -1) if self.flat(i)), k)

    def flat(self, k: int) -> bool:
        """True where frame k is one even tone."""
        return self.deviation(k) < FLAT

    def deviation(self, k: int) -> float:
        """Of the luma of frame k, whatever the letterbox around it (pixels that were never bright)."""
        look = self.looks[k]
        if look.deviation is None:
            gray = look.gray
            self._note_bright(gray)
            look.deviation = float(cv2.meanStdDev(gray, mask=self._active)[1][0, 0])
        return look.deviation

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
