"""From decoder planes to pixels as displayed: the small frame of every detector, pictures, full-size luma.

The small frame is wanted for every frame of a film, so it never touches full-size colour: `stages.decode.planes`
brings each plane to its size, and only the tiny result is turned into BGR. A picture that may never be asked
for is kept as planes. YCbCr is turned into BGR by the frame's own matrix and range (ITU-R BT.601, BT.709,
BT.2020 non-constant luminance). High dynamic range is not tone-mapped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np

from stages.decode.planes import TINY, fitted, sized
from stages.decode.scaler import Scaler
from stages.frames import SMALL_SIDE, Box, SourceError

MAX_SIDE = 16384  # a longer side is refused, pixels
MAX_PIXELS = 2**27  # a larger picture is refused

_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593), 7: (0.212, 0.087)}  # Kr, Kb
_BT601 = (0.299, 0.114)
_UNSPECIFIED_MATRIX = 2
_FULL_RANGE = 2
_PLANAR = re.compile(r"yuv[aj]?(?:420|422|444|440|411|410)p(?:(9|10|12|14|16)le)?$")
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

    @cached_property
    def stored_small(self) -> tuple[int, int]:
        """(width, height) before turning of the small frame that every detector sees."""
        return self.stored(self.fitted(SMALL_SIDE))

    def stored(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) before turning of a picture that is to be displayed at `size`."""
        return (size[1], size[0]) if self.rotation in (90, 270) else size

    def stored_box(self, box: Box, width: int, height: int, grid: tuple[int, int] = (1, 1)) -> Box:
        """A box of the displayed picture as that of a stored one of width x height, to whole steps of `grid`."""
        x, y, w, h = box
        across, down = self.stored((self.width, self.height))
        if self.rotation == 90:
            x, y, w, h = y, self.width - x - w, h, w
        elif self.rotation == 180:
            x, y = self.width - x - w, self.height - y - h
        elif self.rotation == 270:
            x, y, w, h = self.height - y - h, x, h, w
        if self.mirrored:
            x = across - x - w
        x, w = _stretched(x, w, across, width, grid[0])
        y, h = _stretched(y, h, down, height, grid[1])
        return x, y, w, h

    def fitted(self, long_side: int, *, upscale: bool = False) -> tuple[int, int]:
        """(width, height) with that long side and the same aspect, each at least 1."""
        longest = max(self.width, self.height)
        if longest <= long_side and not upscale:
            return self.width, self.height
        scale = long_side / longest
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    def turned_means(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `turned` does, done to the means of a stored picture's rows (h,) and columns (w,)."""
        if self.mirrored:
            columns = columns[::-1]
        if self.rotation == 90:
            return columns, rows[::-1]
        if self.rotation == 180:
            return rows[::-1], columns[::-1]
        return (columns[::-1], rows) if self.rotation == 270 else (rows, columns)

    def turned(self, image: np.ndarray) -> np.ndarray:
        """The stored image (h, w[, 3]) as displayed."""
        if self.mirrored:
            image = cv2.flip(image, 1)
        return cv2.rotate(image, _TURNS[self.rotation]) if self.rotation else image


def _stretched(start: int, length: int, of: int, to: int, step: int) -> tuple[int, int]:
    """A stretch of a line of `of` pixels as one of a line of `to`, begun and ended at whole steps or the end."""
    begin = min(round(start * to / (of * step)) * step, (to - 1) // step * step)
    end = round((start + length) * to / (of * step)) * step
    return begin, min(to, max(end, begin + step)) - begin


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


@lru_cache(maxsize=32)
def _to_luma(full_range: bool) -> np.ndarray:
    """(256,) uint8: full-range luma of a stored value."""
    values = np.arange(256) if full_range else (np.arange(256) - 16) * 255 / 219
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _luma_bits(name: str) -> int | None:
    """Bits of a stored value where the format has planes of Y, Cb and Cr; None for every other format."""
    found = _PLANAR.match(name)
    return int(found[1] or 8) if found else None


def line_means(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of a picture (h, w) uint8 or uint16 by row (h,) and by column (w,), float32."""
    rows = cv2.reduce(luma, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
    return rows, cv2.reduce(luma, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()


@dataclass(frozen=True)
class KeptPicture:
    """A picture that is made when it is asked for, of planes that were halved to what it takes.

    `luma` (h, w), `blue` and `red` are at least as large as the picture and, of colour, half of it.
    """

    planes: tuple[np.ndarray, np.ndarray, np.ndarray]
    bits: int
    to_bgr: np.ndarray
    size: tuple[int, int]  # (width, height), before turning
    display: Display

    def made(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR."""
        size = self.size
        # Up to so little, bilinear weighs all pixels nearly alike, at a fifth of the cost.
        planes = [
            fitted(plane, size, exact=min(size) < TINY or plane.shape[1] > 1.5 * size[0]) for plane in self.planes
        ]
        return self.display.turned(_bgr(planes, self.bits, self.to_bgr))


@dataclass(frozen=True)
class MadePicture:
    """A picture that was made at once."""

    bgr: np.ndarray

    def made(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR."""
        return self.bgr


def _bgr(planes: Any, bits: int, to_bgr: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 BGR of three planes (h, w)."""
    image = cv2.merge(planes)
    if bits > 8:
        image = cv2.convertScaleAbs(image, alpha=2.0 ** (8 - bits))
    return cv2.transform(image, to_bgr)


class VideoFrame:
    """One decoded frame of PyAV, made displayable (see `stages.frames.Frame`)."""

    __slots__ = ("_display", "_frame", "_scaler", "_small", "pts", "seconds")

    def __init__(self, frame: Any, pts: int, seconds: float, display: Display, scaler: Scaler):
        self.pts = pts
        self.seconds = seconds
        self._frame = frame
        self._display = display
        self._scaler = scaler
        self._small: np.ndarray | None = None

    @property
    def small(self) -> np.ndarray:
        if self._small is None:
            size = self._display.stored_small
            frame = self._frame
            bits = _luma_bits(frame.format.name)
            if bits:  # 2 to 3 times cheaper than by libswscale
                planes = self._scaler.planes.of(frame, bits)
                parts = [planes.small(k, size) for k in range(3)]
                image = _bgr(parts, bits, _to_bgr(self._matrix(), self._full_range()))
            else:
                image = self._scaled(size, "bgr24")
            self._small = self._display.turned(image)
        return self._small

    def picture(self, long_side: int) -> np.ndarray:
        """(h, w, 3) uint8 BGR with that long side, up- or downscaled."""
        return self.kept(long_side).made()

    def kept(self, long_side: int) -> KeptPicture | MadePicture:
        """`picture`, to be made later or never: holds nothing of the frame's buffers."""
        frame, display = self._frame, self._display
        size = display.stored(display.fitted(long_side, upscale=True))
        bits = _luma_bits(frame.format.name)
        if not bits:
            return MadePicture(display.turned(self._scaled(size, "bgr24")))
        planes = self._scaler.planes.of(frame, bits)
        parts = (planes.halved(0, size), planes.halved(1, size, 1), planes.halved(2, size, 1))
        to_bgr = _to_bgr(self._matrix(), self._full_range())
        return KeptPicture(tuple(part.copy() for part in parts), bits, to_bgr, size, display)

    def cropped(self, box: Box, size: tuple[int, int]) -> np.ndarray:
        """(h, w, 3) uint8 RGB: the box of the displayed picture at `size` (width, height)."""
        frame, display = self._frame, self._display
        stored = display.stored(size)
        bits = _luma_bits(frame.format.name)
        if bits:
            planes = self._scaler.planes.of(frame, bits)
            rows, columns = planes.whole(1).shape
            across, down = -(-frame.width // columns), -(-frame.height // rows)  # pixels to one of colour
            x, y, w, h = display.stored_box(box, frame.width, frame.height, (across, down))
            luma = planes.whole(0)[y : y + h, x : x + w]
            colour = slice(y // down, -(-(y + h) // down)), slice(x // across, -(-(x + w) // across))
            parts = (luma, planes.whole(1)[colour], planes.whole(2)[colour])
            parts = [sized(part, stored, self._scaler.average) for part in parts]
            return display.turned(_bgr(parts, bits, _to_bgr(self._matrix(), self._full_range())[::-1]))
        x, y, w, h = display.stored_box(box, frame.width, frame.height)
        whole = self._scaled((frame.width, frame.height), "bgr24")
        return display.turned(cv2.cvtColor(sized(whole[y : y + h, x : x + w], stored), cv2.COLOR_BGR2RGB))

    def gray(self, long_side: int) -> np.ndarray:
        """(h, w) uint8 full-range luma with that long side, up- or downscaled."""
        frame, display = self._frame, self._display
        size = display.stored(display.fitted(long_side, upscale=True))
        if _luma_bits(frame.format.name) == 8 and frame.width >= 2 * size[0]:
            half = self._scaler.planes.of(frame, 8).halved(0, size)
            if half.shape[1::-1] == size:  # an exact average of areas already
                return display.turned(cv2.LUT(half, _to_luma(self._full_range())))
        return display.turned(self._scaled(size, "gray"))

    def luma_means(self) -> tuple[np.ndarray, np.ndarray]:
        """Means of the full-range luma by row (h,) and by column (w,) float32: stored size, turned."""
        frame, display = self._frame, self._display
        bits = _luma_bits(frame.format.name)
        if bits and (frame.width, frame.height) == (display.stored_width, display.stored_height):
            luma = self._scaler.planes.of(frame, bits).whole(0)
            full = self._full_range()
        else:
            luma = self._scaled((display.stored_width, display.stored_height), "gray")
            bits, full = 8, True
        # The mapping to eight bits of full range is linear, so the means are mapped, not the picture.
        gain, black = (1.0, 0.0) if full else (255 / 219, 16.0)
        means = line_means(luma)
        for mean in means:
            mean *= np.float32(gain * 2.0 ** (8 - bits))
            mean -= np.float32(gain * black)
            np.maximum(mean, 0, out=mean)
            np.minimum(mean, 255, out=mean)
        return display.turned_means(*means)

    def _scaled(self, size: tuple[int, int], name: str) -> np.ndarray:
        return self._scaler.scaled(self._frame, size, name, self._matrix(), self._full_range())

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
