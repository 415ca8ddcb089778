"""Pictures of a frame that outlive it: made already, or kept as small planes and made when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.decode.colour import to_bgr
from stages.decode.display import Display
from stages.decode.planes import TINY, fitted


@dataclass(frozen=True)
class KeptPicture:
    """A picture that is made when it is asked for, from planes that were halved to about its size.

    `planes` are Y, Cb and Cr (h, w): luma is at least as large as the picture, colour at least half as large.
    """

    planes: tuple[np.ndarray, np.ndarray, np.ndarray]
    bits: int
    matrix: np.ndarray  # (3, 4), to BGR
    size: tuple[int, int]  # (width, height), before turning
    display: Display

    def made(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR."""
        size = self.size
        # Up to a factor of 1.5, bilinear weighs all pixels nearly alike, at a fifth of the cost.
        planes = [
            fitted(plane, size, exact=min(size) < TINY or plane.shape[1] > 1.5 * size[0]) for plane in self.planes
        ]
        return self.display.turned(to_bgr(planes, self.bits, self.matrix))


@dataclass(frozen=True)
class MadePicture:
    """A picture that is made already."""

    bgr: np.ndarray

    def made(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR."""
        return self.bgr
