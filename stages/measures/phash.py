"""A perceptual hash of a clip: near duplicates are a few bits apart."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np

from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed

_SIDE = 32  # the mean frame that is transformed, pixels
_FAINT = 2.0  # DCT coefficients smaller than this (0-255 luma, orthonormal) are noise of a flat picture


class PerceptualHash(Measure):
    """Three 64-bit DCT hashes, of the mean frame of each third of the clip: 48 hex digits.

    The hash is pHash's (Zauner 2010): the frame at 32 x 32, its DCT, the 8 x 8 coefficients after the first
    row and column, each compared with their median. Leaving out the first row and column makes it deaf to
    brightness and to plain bars. Compare with the Hamming distance of the 192 bits.
    """

    name = "phash"
    version = 2
    columns: ClassVar[dict[str, str]] = {"phash": "string"}
    most_kept = 240

    def observe(self, sample: Sample, previous: Sample | None) -> tuple[int, np.ndarray]:
        small = cv2.resize(sample.trail[-1][1], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        return 1, small.astype(np.float32)  # how many frames are summed, their sum (32, 32)

    def merge(self, earlier: Any, later: Any) -> tuple[int, np.ndarray]:
        return earlier[0] + later[0], earlier[1] + later[1]

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        if not values:
            return {"phash": None}
        length = max(clip.end_s - clip.start_s, 1e-9)
        hashes = []
        for third in range(3):
            at = [3 * (seconds - clip.start_s) / length for seconds, _ in values]
            mine = [value for share, (_, value) in zip(at, values, strict=True) if third <= share < third + 1]
            if not mine:  # too short for a sample in each third: the nearest one stands for it
                nearest = min(range(len(at)), key=lambda i, third=third: abs(at[i] - third - 0.5))
                mine = [values[nearest][1]]
            count = sum(value[0] for value in mine)
            hashes.append(dct_hash(sum(value[1] for value in mine) / count))
        return {"phash": "".join(f"{value:016x}" for value in hashes)}


def dct_hash(picture: np.ndarray) -> int:
    """The 64-bit hash of a gray picture (32, 32) float32."""
    coefficients = cv2.dct(np.asarray(picture, dtype=np.float32))[1:9, 1:9].ravel()
    coefficients[np.abs(coefficients) < _FAINT] = 0.0
    bits = coefficients > np.median(coefficients)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
