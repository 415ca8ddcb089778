"""Perceptual hashes of a clip: near duplicates are a few bits apart."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from stages.base import Column
from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed

_SIDE = 32  # the picture that is transformed, pixels
_FAINT = 2.0  # DCT coefficients smaller than this (0-255 luma, orthonormal) are noise of a flat picture
_SAME = 2  # bits: a frame that differs by no more from the one kept before it says nothing new

# Frames summed, the sum of their coefficients (8, 8), (seconds, hash) of single frames.
HashedFrames = tuple[int, np.ndarray, list[tuple[float, int]]]


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
    version = 4
    columns: ClassVar[dict[str, Column]] = {
        "phash": Column("string", "hash of the mean frame of each third", "48 hex digits"),
        "phash_frames": Column(
            "string", "hashes of single frames, two a sample, without repetitions", "16 hex digits a frame"
        ),
    }
    most_kept = 240

    def observe(self, sample: Sample, previous: Sample | None) -> HashedFrames:
        ends = sample.trail[:1] + sample.trail[-1:] if len(sample.trail) > 1 else sample.trail
        seen = [(at, dct_coefficients(gray)) for at, gray in ends]
        return 1, seen[-1][1], [(at, dct_hash(coefficients)) for at, coefficients in seen]

    def merge(self, earlier: Any, later: Any) -> HashedFrames:
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
                nearest = int(np.argmin([abs(place - third - 0.5) for place in at]))
                mine = [values[nearest][1]]
            count = sum(value[0] for value in mine)
            hashes.append(dct_hash(sum(value[1] for value in mine) / count))
        return {"phash": _hex(hashes), "phash_frames": _hex(_new_looks(values, clip.start_s))}


def dct_coefficients(gray: np.ndarray) -> np.ndarray:
    """(8, 8) float32: of a gray picture (h, w) at 32 x 32, the DCT coefficients after the first row and column.

    Averaging areas and the DCT are both linear, so each side takes one small matrix for the two; and the
    coefficients of a mean frame are the mean of the frames'.
    """
    height, width = gray.shape
    return _transform(height) @ gray.astype(np.float32) @ _transform(width).T


@lru_cache(maxsize=64)
def _transform(length: int) -> np.ndarray:
    """(8, length) float32: the orthonormal DCT-II, coefficients 1 to 8, of a line averaged to 32 pixels."""
    edges = np.arange(_SIDE + 1) * length / _SIDE
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)  # (32, length)
    area = np.maximum(overlap, 0) * _SIDE / length
    waves = np.cos(np.pi * np.arange(1, 9)[:, None] * (np.arange(_SIDE) + 0.5) / _SIDE) * np.sqrt(2 / _SIDE)
    return (waves @ area).astype(np.float32)


def dct_hash(coefficients: np.ndarray) -> int:
    """The 64-bit hash of a picture's coefficients (8, 8)."""
    values = coefficients.ravel()
    values = np.where(np.abs(values) < _FAINT, np.float32(0), values)
    middle = np.partition(values, (31, 32))
    bits = values > (middle[31] + middle[32]) / 2
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
