"""From decoder planes to pixels as displayed: the small frame of every detector, pictures, full-size luma.

The small frame is wanted for every frame of a film, so it never touches full-size colour: each plane is
halved by 2x2 boxes (which OpenCV does at memory speed) until it is within twice the target, resized, and
only the tiny result is turned into BGR. YCbCr is turned into BGR by the frame's own matrix and range
(ITU-R BT.601, BT.709, BT.2020 non-constant luminance). High dynamic range is not tone-mapped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stages.frames import SMALL_SIDE, SourceError

MAX_SIDE = 16384  # a longer side is refused, pixels
MAX_PIXELS = 2**27  # a larger picture is refused

_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593), 7: (0.212, 0.087)}  # Kr, Kb
_BT601 = (0.299, 0.114)
_UNSPECIFIED_MATRIX = 2
_FULL_RANGE = 2
_PLANAR = re.compile(r"(?:yuv[aj]?(?:420|422|444|440|411|410)p|gray)(?:(9|10|12|14|16)le)?$")
_SEMI_PLANAR = {"nv12": 8, "nv21": 8, "nv16": 8, "nv24": 8, "nv42": 8, "p010le": 16, "p016le": 16}
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def check_size(width: int, height: int) -> None:
    """Refuses a picture of no size or of absurd size (a decompression bomb) with SourceError."""
    if width < 1 or height < 1:
        raise SourceError(f"no picture size ({width}x{height})")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise SourceError(f"picture of {width}x{height} is over {MAX_SIDE} px a side or 2^27 px in all")


@dataclass(frozen=True)
class Display:
    """How stored pixels become displayed ones: squared by the sample aspect, mirrored, turned clockwise."""

    width: int  # as displayed
    height: int
    rotation: int = 0  # degrees clockwise: 0, 90, 180, 270
    mirrored: bool = False  # left-right, before turning
    stored_width: int = 0  # what the decoder gives; a frame of another size is brought to this one
    stored_height: int = 0

    @classmethod
    def of(cls, width: int, height: int, aspect: Fraction, rotation: int, mirrored: bool) -> Display:
        """From the stored size and the sample aspect ratio (width of a sample over its height)."""
        shown = (max(1, round(width * aspect)), height)  # lines stay lines, as everywhere in the field
        check_size(*shown)
        if rotation in (90, 270):
            shown = (shown[1], shown[0])
        return cls(*shown, rotation, mirrored, width, height)

    def stored(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) before turning of a picture that is to be displayed at `size`."""
        return (size[1], size[0]) if self.rotation in (90, 270) else size

    def fitted(self, long_side: int, *, upscale: bool = False) -> tuple[int, int]:
        """(width, height) with that long side and the same aspect, each at least 1."""
        longest = max(self.width, self.height)
        if longest <= long_side and not upscale:
            return self.width, self.height
        scale = long_side / longest
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    def turned_luma(self, luma: np.ndarray) -> np.ndarray:
        """The luma (h, w) of a whole frame as displayed but for the sample aspect, always of one size."""
        size = (self.stored_width, self.stored_height)
        return self.turned(luma if luma.shape == size[::-1] else cv2.resize(luma, size))

    def turned(self, image: np.ndarray) -> np.ndarray:
        """The stored image (h, w[, 3]) as displayed."""
        if self.mirrored:
            image = cv2.flip(image, 1)
        return cv2.rotate(image, _TURNS[self.rotation]) if self.rotation else image


def resized(plane: np.ndarray, size: tuple[int, int], *, exact: bool = False) -> np.ndarray:
    """The plane (h, w[, c]) at `size` (width, height): 2x2 boxes to within twice the size, then bilinear.

    `exact` ends with an area average instead, three times slower. Both weigh every source pixel.
    """
    height, width = plane.shape[:2]
    while width >= 2 * size[0] and height >= 2 * size[1]:
        width >>= 1
        height >>= 1
        even = plane[: 2 * height, : 2 * width]  # dropping an odd last line keeps OpenCV's fast 2x2 path
        plane = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
    if (width, height) == size:
        return plane
    shrinks = exact and (width > size[0] or height > size[1])
    far = width >= 2 * size[0] or height >= 2 * size[1]
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA if shrinks or far else cv2.INTER_LINEAR)


@lru_cache(maxsize=32)
def _to_bgr(matrix: int, full_range: bool) -> np.ndarray:
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


_EXPAND = np.clip(np.round((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _layout(name: str) -> tuple[str, int] | None:
    """('gray' | 'planar' | 'semi', bits of a stored value), or None: the format goes through swscale."""
    if name in _SEMI_PLANAR:
        return ("swapped" if name in ("nv21", "nv42") else "semi"), _SEMI_PLANAR[name]
    found = _PLANAR.match(name)
    if not found:
        return None
    return ("gray" if name.startswith("gray") else "planar"), int(found[1] or 8)


def _plane(plane: Any, width: int, height: int, bits: int, channels: int = 1) -> np.ndarray:
    """A view (no copy) of a decoder's plane: (height, width[, channels]), line padding left out."""
    values = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16)
    rows = values.reshape(height, -1)[:, : width * channels]
    if plane.line_size < 0:  # stored bottom-up
        rows = np.ascontiguousarray(rows[::-1])
    return rows if channels == 1 else rows.reshape(height, width, channels)


def _eight_bits(plane: np.ndarray, bits: int) -> np.ndarray:
    return plane if bits == 8 else cv2.convertScaleAbs(plane, alpha=2.0 ** (8 - bits))


class VideoFrame:
    """One decoded frame of PyAV, made displayable (see `stages.frames.Frame`)."""

    __slots__ = ("_bgr", "_display", "_frame", "_scaler", "_small", "pts", "seconds")

    def __init__(self, frame: Any, pts: int, seconds: float, display: Display, scaler: VideoReformatter):
        self.pts = pts
        self.seconds = seconds
        self._frame = frame
        self._display = display
        self._scaler = scaler
        self._small: np.ndarray | None = None
        self._bgr: np.ndarray | None = None

    @property
    def small(self) -> np.ndarray:
        if self._small is None:
            self._small = self._painted(self._display.fitted(SMALL_SIDE), exact=False)
        return self._small

    def picture(self, long_side: int) -> np.ndarray:
        """(h, w, 3) uint8 BGR with that long side, up- or downscaled."""
        return self._painted(self._display.fitted(long_side, upscale=True), exact=True)

    def luma(self) -> np.ndarray:
        """(h, w) uint8 full-range luma at the stored size, turned as displayed."""
        frame = self._frame
        layout = _layout(frame.format.name)
        if layout is None:
            luma = cv2.cvtColor(self._full_bgr(), cv2.COLOR_BGR2GRAY)
        else:
            bits = layout[1]
            luma = _eight_bits(_plane(frame.planes[0], frame.width, frame.height, bits), bits)
            luma = luma.copy() if self._full_range() else cv2.LUT(luma, _EXPAND)
        return self._display.turned_luma(luma)

    def _painted(self, size: tuple[int, int], *, exact: bool) -> np.ndarray:
        stored = self._display.stored(size)
        layout = _layout(self._frame.format.name)
        if layout is None:
            image = resized(self._full_bgr(), stored, exact=exact)
            image = image.copy() if image is self._bgr else image
        else:
            image = self._from_planes(*layout, stored, exact)
        return self._display.turned(image)

    def _from_planes(self, kind: str, bits: int, size: tuple[int, int], exact: bool) -> np.ndarray:
        frame, planes = self._frame, self._frame.planes
        width, height = frame.width, frame.height
        luma = _eight_bits(resized(_plane(planes[0], width, height, bits), size, exact=exact), bits)
        if kind == "gray":
            return cv2.merge([luma if self._full_range() else cv2.LUT(luma, _EXPAND)] * 3)
        chroma_width, chroma_height = planes[1].width, planes[1].height
        if kind == "planar":
            stored = [_plane(plane, chroma_width, chroma_height, bits) for plane in planes[1:3]]
            chroma = [resized(plane, size, exact=exact) for plane in stored]
        else:
            both = resized(_plane(planes[1], chroma_width, chroma_height, bits, 2), size, exact=exact)
            chroma = list(cv2.split(both))[:: -1 if kind == "swapped" else 1]
        blue, red = (_eight_bits(plane, bits) for plane in chroma)
        return cv2.transform(cv2.merge((luma, blue, red)), _to_bgr(self._matrix(), self._full_range()))

    def _full_bgr(self) -> np.ndarray:
        """(h, w, 3) BGR at the stored size through swscale: packed, RGB, palette, alpha and the rest."""
        if self._bgr is None:
            frame = self._frame
            is_rgb = frame.format.is_rgb or "pal" in frame.format.name
            matrix = None if is_rgb else {1: 1, 7: 7, 9: 9, 10: 9}.get(self._matrix(), 5)
            full = None if is_rgb else (2 if self._full_range() else 1)
            bgr = self._scaler.reformat(
                frame, format="bgr24", src_colorspace=matrix, src_color_range=full, dst_color_range=2,
                interpolation="BILINEAR", threads=1)  # fmt: skip
            self._bgr = _plane(bgr.planes[0], bgr.width, bgr.height, 8, 3).copy()
        return self._bgr

    def _full_range(self) -> bool:
        stated = self._frame.color_range
        if stated:
            return stated == _FULL_RANGE
        name = self._frame.format.name
        return name.startswith(("yuvj", "gray"))  # what libav means by these when nothing is stated

    def _matrix(self) -> int:
        """The stated matrix (ISO/IEC 23091-4); unstated, what players take: BT.709 from 720 lines on."""
        stated = self._frame.colorspace
        if stated != _UNSPECIFIED_MATRIX:
            return stated
        return 1 if min(self._frame.width, self._frame.height) >= 720 else 5


class PictureFrame:
    """A frame that is BGR pixels already (a still image, decord's output): (h, w, 3) uint8, stored size."""

    __slots__ = ("_bgr", "_display", "_small", "pts", "seconds")

    def __init__(self, bgr: np.ndarray, pts: int, seconds: float, display: Display):
        self.pts = pts
        self.seconds = seconds
        self._bgr = bgr
        self._display = display
        self._small: np.ndarray | None = None

    @property
    def small(self) -> np.ndarray:
        if self._small is None:
            self._small = self._sized(self._display.fitted(SMALL_SIDE), exact=False)
        return self._small

    def picture(self, long_side: int) -> np.ndarray:
        return self._sized(self._display.fitted(long_side, upscale=True), exact=True)

    def luma(self) -> np.ndarray:
        return self._display.turned_luma(cv2.cvtColor(self._bgr, cv2.COLOR_BGR2GRAY))

    def _sized(self, size: tuple[int, int], *, exact: bool) -> np.ndarray:
        image = resized(self._bgr, self._display.stored(size), exact=exact)
        return self._display.turned(image.copy() if image is self._bgr else image)
