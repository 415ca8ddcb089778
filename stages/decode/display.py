"""How a stored picture becomes the displayed one: size, sample aspect ratio, rotation, mirroring, boxes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import cv2
import numpy as np

from stages.frames import SMALL_SIDE, Box, SourceError

MAX_SIDE = 16384  # a longer side is refused, pixels
MAX_PIXELS = 2**27  # a larger picture is refused

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def check_size(width: int, height: int) -> None:
    """Refuses a picture of no size or of absurd size (a decompression bomb) with SourceError."""
    if width < 1 or height < 1:
        raise SourceError(f"no picture size ({width}x{height})")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise SourceError(f"picture of {width}x{height} is over {MAX_SIDE} px a side or 2^27 px in all")


@dataclass(frozen=True)
class Display:
    """How stored pixels become displayed ones: scaled to square pixels, mirrored, then turned clockwise."""

    width: int  # as displayed
    height: int
    rotation: int = 0  # degrees clockwise: 0, 90, 180, 270
    mirrored: bool = False  # left-right, before turning
    stored_width: int = 0  # what the decoder gives; a frame of another size is brought to this one
    stored_height: int = 0

    @classmethod
    def of(cls, width: int, height: int, aspect: Fraction, rotation: int, mirrored: bool) -> Display:
        """From the stored size and the sample aspect ratio (width of a sample over its height)."""
        shown = (max(1, round(width * aspect)), height)  # the width is scaled, as other tools do
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
        x, w = _scaled(x, w, across, width, grid[0])
        y, h = _scaled(y, h, down, height, grid[1])
        return x, y, w, h

    def fitted(self, long_side: int, *, upscale: bool = False) -> tuple[int, int]:
        """(width, height) with that long side and the same aspect, each at least 1."""
        longest = max(self.width, self.height)
        if longest <= long_side and not upscale:
            return self.width, self.height
        scale = long_side / longest
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    def turned_means(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The means of the displayed picture's rows and columns from those of the stored one's, (h,) and (w,)."""
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


def _scaled(start: int, length: int, of: int, to: int, step: int) -> tuple[int, int]:
    """(start, length) on a line of `of` pixels, scaled to a line of `to` pixels and rounded to multiples of `step`."""
    begin = min(round(start * to / (of * step)) * step, (to - 1) // step * step)
    end = round((start + length) * to / (of * step)) * step
    return begin, min(to, max(end, begin + step)) - begin
