"""YCbCr to BGR and luma by a frame's own matrix and range (ITU-R BT.601, BT.709, BT.2020 non-constant luminance).

High dynamic range is brought to standard range in `stages.decode.tone_map`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import av
import cv2
import numpy as np

_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593), 7: (0.212, 0.087)}  # Kr, Kb
_BT601 = (0.299, 0.114)
_UNSPECIFIED_MATRIX, _BT2020 = 2, 9
_HDR_TRANSFERS = (16, 18)  # PQ and HLG
_FULL_RANGE = 2
# FFmpeg's names of the values of ISO/IEC 23091-4; 0, 2 and 3 say nothing.
_TRANSFERS = {
    1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100", 10: "log316",
    11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084",
    17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip
_PRIMARIES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020", 10: "smpte428",
    11: "smpte431", 12: "smpte432", 22: "ebu3213",
}  # fmt: skip
_MATRICES = {
    0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
    10: "bt2020c", 11: "smpte2085", 12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp", 15: "ipt-c2",
    16: "ycgco-re", 17: "ycgco-ro",
}  # fmt: skip
_PLANAR = re.compile(r"yuv[aj]?(?:420|422|444|440|411|410)p(?:(9|10|12|14|16)le)?$")


@lru_cache(maxsize=32)
def to_bgr_matrix(matrix: int, full_range: bool) -> np.ndarray:
    """(3, 4) float32: BGR in 0-255 from (Y, Cb, Cr, 1) in 8 bits."""
    red, blue = _LUMA_WEIGHTS.get(matrix, _BT601)
    green = 1 - red - blue
    weights = np.array(
        [[1, 2 * (1 - blue), 0],
         [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
         [1, 0, 2 * (1 - red)]])  # fmt: skip
    scale = np.array([1, 1, 1]) if full_range else np.array([255 / 219, 255 / 224, 255 / 224])
    weights = weights * scale
    offset = weights @ np.array([0 if full_range else 16, 128, 128])
    return np.column_stack([weights, -offset]).astype(np.float32)


@lru_cache(maxsize=32)
def luma_table(full_range: bool) -> np.ndarray:
    """(256,) uint8: full-range luma of a stored value."""
    values = np.arange(256) if full_range else (np.arange(256) - 16) * 255 / 219
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def planar_bits(name: str) -> int | None:
    """Bits of a stored value where the format has planes of Y, Cb and Cr; None for every other format."""
    found = _PLANAR.match(name)
    return int(found[1] or 8) if found else None


def matrix_of(frame: av.VideoFrame) -> int:
    """The stated matrix (ISO/IEC 23091-4); unstated, what players take: BT.2020 of HDR, BT.709 from 720 lines on."""
    stated = frame.colorspace
    if stated != _UNSPECIFIED_MATRIX:
        return stated
    if is_hdr(frame):
        return _BT2020
    return 1 if min(frame.width, frame.height) >= 720 else 5


def is_hdr(frame: av.VideoFrame) -> bool:
    """Whether its values are PQ or HLG, by what the frame states."""
    return frame.color_trc in _HDR_TRANSFERS


def transfer_name(frame: av.VideoFrame) -> str | None:
    """The stated transfer characteristics."""
    return _TRANSFERS.get(frame.color_trc)


def primaries_name(frame: av.VideoFrame) -> str | None:
    """The stated primaries."""
    return _PRIMARIES.get(frame.color_primaries)


def matrix_name(frame: av.VideoFrame) -> str | None:
    """The stated matrix."""
    return _MATRICES.get(frame.colorspace)


def is_full_range(frame: av.VideoFrame) -> bool:
    """Whether luma goes from 0 to 255, by what the frame states or, where it is silent, by its pixel format."""
    if frame.color_range:
        return frame.color_range == _FULL_RANGE
    return frame.format.name.startswith(("yuvj", "gray"))  # what libav means by these when nothing is stated


def frame_to_bgr(frame: av.VideoFrame) -> np.ndarray:
    """(3, 4) float32: `to_bgr_matrix` of a frame."""
    return to_bgr_matrix(matrix_of(frame), is_full_range(frame))


def to_bgr(planes: Sequence[np.ndarray], bits: int, matrix: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 BGR of planes (h, w) of Y, Cb and Cr with so many bits, by a matrix (3, 4)."""
    image = cv2.merge(planes)
    if bits > 8:
        image = cv2.convertScaleAbs(image, alpha=2.0 ** (8 - bits))
    return cv2.transform(image, matrix)


def line_means(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of a picture (h, w) uint8 or uint16 by row (h,) and by column (w,), float32."""
    rows = cv2.reduce(luma, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
    return rows, cv2.reduce(luma, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
