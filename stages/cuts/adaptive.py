"""PySceneDetect's AdaptiveDetector, score for score, at a third of its cost on small pictures.

Its arithmetic is a few sums over a picture; on 64 x 36 pixels the temporaries and the FrameTimecodes around
them cost more than the sums. The tests hold both to the same cuts and the same scores.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

WINDOW = 2  # frames on either side whose mean change a cut has to exceed


class Adaptive:
    """Feed every picture (h, w, 3) uint8 BGR, of one size, in order; cuts come WINDOW pictures late.

    A cut changes hue, saturation and value by at least `least_change` on average (0-255), and `threshold`
    times as much as the mean of the WINDOW changes on either side.
    """

    def __init__(self, threshold: float, least_change: float):
        self._threshold = threshold
        self._least = least_change
        self._hsv: np.ndarray | None = None
        self._spare: np.ndarray | None = None  # the picture before the last one: its memory is used again
        self._difference: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=2 * WINDOW + 1)

    def is_cut(self, picture: np.ndarray) -> bool:
        """True where the picture WINDOW before this one is the first of a scene."""
        changes = self._changes
        changes.append(self.change(picture))
        if len(changes) <= 2 * WINDOW or changes[WINDOW] < self._least:
            return False
        change = changes[WINDOW]
        mean = sum(near for k, near in enumerate(changes) if k != WINDOW) / (2.0 * WINDOW)
        ratio = 255.0 if abs(mean) < 0.00001 else min(change / mean, 255.0)
        return ratio >= self._threshold

    def change(self, picture: np.ndarray) -> float:
        """Mean absolute change of hue, saturation and value since the last picture; 0 for the first."""
        hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV, dst=self._spare)
        last, self._hsv, self._spare = self._hsv, hsv, self._hsv
        if last is None:
            return 0.0
        self._difference = cv2.absdiff(hsv, last, dst=self._difference)
        hue, saturation, value, _ = cv2.sumElems(self._difference)
        pixels = float(hsv.shape[0] * hsv.shape[1])
        return (hue / pixels + saturation / pixels + value / pixels) / 3.0
