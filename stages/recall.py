"""The frames that the search for transitions remembers, by time: tiny pictures, and which of them are flat."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import cv2
import numpy as np

from stages.blend import FLAT, SAMPLES, Look

CLOSEST = 1 / 64  # frames nearer than this to the one before are not remembered, seconds
NEAR = 1e-6  # times less far apart are the same, seconds

_EDGE = np.ones((3, 3), np.uint8)  # the border of a letterbox is half picture, half bar


class Recall:
    """`looks`, their `seconds`, and whether each is `flat`: three lists of one length, oldest first."""

    def __init__(self):
        self.looks: list[Look] = []
        self.seconds: list[float] = []
        self.flat: list[bool] = []
        self._brightest: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.looks)

    def wants(self, pts: int, seconds: float) -> bool:
        """False for a frame too near to the one before. To be asked for every frame: fills `Look.after`."""
        if not self.looks:
            return True
        if self.looks[-1].after is None:
            self.looks[-1].after = pts
        return seconds - self.seconds[-1] >= CLOSEST - 1e-4

    def add(self, look: Look) -> None:
        self.looks.append(look)
        self.seconds.append(look.seconds)
        self.flat.append(self._is_flat(look.gray))

    def forget(self, before: float) -> float:
        """Drop what is older; the time of what is oldest then."""
        n = bisect_left(self.seconds, before)
        del self.looks[:n], self.seconds[:n], self.flat[:n]
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

    def energies(self, chosen: list[int]) -> np.ndarray:
        return np.array([self.looks[i].energy for i in chosen])

    def flat_run(self, k: int) -> tuple[int, int]:
        """(first, last) index of the run of flat frames that frame k is in; (k, k - 1) where it is not
        flat.
        """
        if k >= len(self.flat) or not self.flat[k]:
            return k, k - 1
        first = last = k
        while first > 0 and self.flat[first - 1]:
            first -= 1
        while last + 1 < len(self.flat) and self.flat[last + 1]:
            last += 1
        return first, last

    def flat_after(self, k: int, seconds: float) -> int:
        """The first flat frame at most so much later than frame k; k where there is none."""
        until = self.at_or_after(self.seconds[k] + seconds)
        return next((i for i in range(k, min(until, len(self.flat))) if self.flat[i]), k)

    def flat_before(self, k: int, seconds: float) -> int:
        """The last flat frame at most so much earlier than frame k; k where there is none."""
        since = self.at_or_after(self.seconds[k] - seconds)
        return next((i for i in range(k, since - 1, -1) if self.flat[i]), k)

    def _is_flat(self, gray: np.ndarray) -> bool:
        """True for one even tone, whatever the letterbox around it (pixels that were never bright)."""
        self._brightest = gray.copy() if self._brightest is None else np.maximum(self._brightest, gray)
        active = cv2.erode((self._brightest > 24).view(np.uint8), _EDGE, borderValue=1)
        if cv2.countNonZero(active) < active.size // 8:
            active = None
        _, deviation = cv2.meanStdDev(gray, mask=active)
        return float(deviation[0, 0]) < FLAT


def spread(first: int, last: int, most: int = SAMPLES) -> list[int]:
    """At most `most` indices from first to last, evenly, both ends among them."""
    count = min(most, last - first + 1)
    return [first + round(i * (last - first) / (count - 1)) for i in range(count)]
