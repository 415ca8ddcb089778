"""Perceptual hashes of a clip: near duplicates are a few bits apart."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np

from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed

_SIDE = 32  # the picture that is transformed, pixels
_FAINT = 2.0  # DCT coefficients smaller than this (0-255 luma, orthonormal) are noise of a flat picture
_SAME = 2  # bits: a frame that differs by no more from the one kept before it says nothing new

Seen = tuple[int, np.ndarray, list[tuple[float, int]]]  # frames summed, their sum (32, 32), (seconds, hash)


class PerceptualHash(Measure):
    """`phash`: three 64-bit DCT hashes, of the mean frame of each third of the clip: 48 hex digits.
    `phash_frames`: the hashes of single frames in order of time, 16 hex digits each.

    The hash is pHash's (Zauner 2010): the frame at 32 x 32, its DCT, the 8 x 8 coefficients after the first
    row and column, each compared with their median. Leaving out the first row and column makes it deaf to
    brightness and to plain bars. Compare `phash` with the Hamming distance of the 192 bits.

    The thirds of a clip and of a part of it show different things, so parts are found by `phash_frames`:
    of every sample the frame itself and the one 1/6 s before it. Of two clips that show the same, whatever
    their samples' offset, some frames then lie within 1/12 s of each other (at 12 fps and more).
    """

    name = "phash"
    version = 3
    columns: ClassVar[dict[str, str]] = {"phash": "string", "phash_frames": "string"}
    most_kept = 240

    def observe(self, sample: Sample, previous: Sample | None) -> Seen:
        ends = sample.trail[:1] + sample.trail[-1:] if len(sample.trail) > 1 else sample.trail
        small = [cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for _, gray in ends]
        hashes = [(at, dct_hash(picture)) for (at, _), picture in zip(ends, small, strict=True)]
        return 1, small[-1].astype(np.float32), hashes

    def merge(self, earlier: Any, later: Any) -> Seen:
        return earlier[0] + later[0], earlier[1] + later[1], earlier[2] + later[2]

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        if not values:
            return {"phash": None, "phash_frames": None}
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
        return {"phash": _hex(hashes), "phash_frames": _hex(_new_looks(values, clip.start_s))}


def dct_hash(picture: np.ndarray) -> int:
    """The 64-bit hash of a gray picture (32, 32)."""
    coefficients = cv2.dct(np.asarray(picture, dtype=np.float32))[1:9, 1:9].ravel()
    coefficients[np.abs(coefficients) < _FAINT] = 0.0
    bits = coefficients > np.median(coefficients)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _new_looks(values: list[Timed], start_s: float) -> list[int]:
    """Hashes of frames inside the clip (a trail may begin before it), without those like the one before."""
    kept: list[int] = []
    for _, (_, _, hashes) in values:
        for seconds, value in hashes:
            if seconds >= start_s - 1e-6 and (not kept or (value ^ kept[-1]).bit_count() > _SAME):
                kept.append(value)
    return kept


def _hex(hashes: list[int]) -> str:
    return "".join(f"{value:016x}" for value in hashes)
