"""High dynamic range (PQ and HLG of ITU-R BT.2100) to standard range: the Möbius curve of FFmpeg's `tonemap` filter.

In this order, for each pixel:

1. Y'CbCr to R'G'B' by the frame's matrix and range.
2. To the light L of a display, in nits: PQ by its EOTF; HLG by its inverse OETF and its OOTF for a display of 1,000
   nits (system gamma 1.2).
3. To BT.709 primaries; negative light is 0.
4. x = L / 203: the reference white of BT.2408 is SDR white.
5. Each of R, G and B through the curve: x up to k = KNEE, and k + (x - k) / (1 + c (x - k)) above it, with
   c = 1 / (1 - k) - 1 / (PEAK - k). It has the slope 1 at k and makes 10,000 nits, the most that PQ has, white.
6. 255 x^(1/2.4), the inverse of the EOTF of BT.1886, rounded.

With `clip` step 5 is min(x, 1). Sources: BT.2100-2, BT.2408-7, BT.1886, libavfilter/vf_tonemap.c (`mobius`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import av
import cv2
import numpy as np

from stages.decode.colour import is_full_range, matrix_of, to_bgr_matrix
from stages.decode.planes import fitted
from stages.decode.rendering import HdrMode

PQ, HLG = 16, 18  # transfer characteristics of ISO/IEC 23091-4
SDR_WHITE = 203.0  # nits
KNEE = 0.7  # share of SDR white up to which light is kept as it is: 142 nits
PEAK = 10_000.0 / SDR_WHITE  # what becomes white
HLG_PEAK = 1_000.0  # nits of the display that HLG is shown on
HLG_GAMMA = 1.2
SDR_GAMMA = 2.4
STEPS = 1 << 16  # of a table: of light by R'G'B', and of SDR values by the square root of light
LUMA_709 = np.array([[0.0722, 0.7152, 0.2126]], np.float32)  # of B'G'R'

_WHITE = (0.3127, 0.3290)  # D65
_PRIMARIES = {  # xy of red, green, blue
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}


class HdrColours:
    """Turns planes of Y', Cb and Cr in PQ or HLG into SDR pictures, through three tables and two matrices."""

    def __init__(self, matrix: int, full_range: bool, bits: int, transfer: int, primaries: int, mode: HdrMode):
        self._to_codes = (STEPS - 2) * to_bgr(matrix, full_range, bits)
        code = np.minimum(np.arange(STEPS) / (STEPS - 2), 1)
        self._hlg = transfer == HLG
        light = (HLG_PEAK * hlg_scene(code) if self._hlg else pq_nits(code)) / SDR_WHITE
        self._light = light.astype(np.float32)
        self._rise = np.diff(light, append=light[-1]).astype(np.float32)  # to the next step
        xyz = xyz_of(_PRIMARIES.get(primaries, _PRIMARIES[9]))
        to_709 = np.linalg.inv(xyz_of(_PRIMARIES[1])) @ xyz
        self._luminance = (xyz[1:2, ::-1] * SDR_WHITE / HLG_PEAK).astype(np.float32)
        most = light[-1] * np.maximum(to_709, 0).sum(1).max()  # that a channel can have
        unit = most / (STEPS - 2) ** 2
        self._to_709 = (to_709[::-1, ::-1] / unit).astype(np.float32)
        x = np.arange(STEPS) ** 2 * unit
        curve = mobius(x) if mode == "tone_map" else x
        self._values = np.rint(255 * np.clip(curve, 0, 1) ** (1 / SDR_GAMMA)).astype(np.uint8)

    def mapped(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        """(h, w, 3) uint8 BGR of planes of luma (h, w) and of Cb and Cr of any size."""
        size = planes[0].shape[1::-1]
        parts = [fitted(plane.astype(np.float32), size, exact=plane.shape[1] > size[0]) for plane in planes]
        codes: np.ndarray = cv2.transform(cv2.merge(parts), self._to_codes)
        np.clip(codes, 0, STEPS - 2, out=codes)
        whole = codes.astype(np.uint16)
        # Between the steps light is interpolated: where matrices subtract bright light from bright light, a step shows.
        codes -= whole
        codes *= cv2.LUT(whole, self._rise)
        codes += cv2.LUT(whole, self._light)
        light: np.ndarray = codes
        if self._hlg:
            light *= cv2.pow(cv2.transform(light, self._luminance), HLG_GAMMA - 1)[..., None]
        roots: np.ndarray = np.sqrt(np.maximum(cv2.transform(light, self._to_709), 0))
        roots += np.float32(0.5)
        return cv2.LUT(roots.astype(np.uint16), self._values)


def hdr_colours(frame: av.VideoFrame, bits: int, mode: HdrMode) -> HdrColours:
    """The colours of a frame in PQ or HLG that has planes of so many bits a value."""
    return _colours(matrix_of(frame), is_full_range(frame), bits, frame.color_trc, frame.color_primaries, mode)


@lru_cache(maxsize=8)
def _colours(matrix: int, full_range: bool, bits: int, transfer: int, primaries: int, mode: HdrMode) -> HdrColours:
    return HdrColours(matrix, full_range, bits, transfer, primaries, mode)


def to_bgr(matrix: int, full_range: bool, bits: int) -> np.ndarray:
    """(3, 4): B', G' and R', 0 to 1, from stored (Y, Cb, Cr, 1) of so many bits (BT.2100, tables 9 and 10)."""
    most, unit = 2**bits - 1, 2 ** (bits - 8)
    luma, black, colour = (most, 0, most) if full_range else (219 * unit, 16 * unit, 224 * unit)
    weights = to_bgr_matrix(matrix, True)[:, :3] / np.array([luma, colour, colour])
    return np.column_stack([weights, -weights @ np.array([black, 128 * unit, 128 * unit])])


def pq_nits(code: np.ndarray) -> np.ndarray:
    """Nits of a PQ value, 0 to 1 (BT.2100, EOTF)."""
    root = np.power(code, 32 / 2523)
    light = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
    return 10_000 * np.power(light, 8192 / 1305)


def hlg_scene(code: np.ndarray) -> np.ndarray:
    """Scene light, 0 to 1, of an HLG value, 0 to 1 (BT.2100, inverse OETF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)


def mobius(x: np.ndarray) -> np.ndarray:
    """Light of SDR, where 1 is white, of light x that goes up to PEAK."""
    above = np.maximum(x - KNEE, 0)
    return np.minimum(x, KNEE) + above / (1 + (1 / (1 - KNEE) - 1 / (PEAK - KNEE)) * above)


def xyz_of(primaries: Sequence[tuple[float, float]]) -> np.ndarray:
    """(3, 3) CIE XYZ from linear R, G and B of these primaries and the white D65."""
    x, y = np.array([*primaries, _WHITE]).T
    columns = np.array([x / y, np.ones(4), (1 - x - y) / y])
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
