"""A window of a clip: the frames, the crop box and the size that are encoded of it; and its pixels.

Times are fractions, so that a clip of exactly two seconds has exactly 32 frames at 16 a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from stages.decode.rendering import STANDARD, Rendering
from stages.frames import Box, SourceError
from stages.unit import Place

PREPROCESSING_VERSION = 2  # increase it when the same window of the same file would give other pixels


@dataclass(frozen=True)
class Window:
    """`frames` frames of a clip at `fps`, the first `offset_s` after the clip's start, as height x width pixels.

    The clip has the frames with start_pts <= pts < end_pts, in ticks of `time_base` seconds. `size` is what
    the file had when it was scanned, bytes, None where it is unknown. `crop` is the letterbox box. `rendering` is how
    the scan rendered the clip.
    """

    clip_id: str
    uri: str
    size: int | None
    start_pts: int
    end_pts: int
    time_base: Fraction
    offset_s: float
    fps: float
    frames: int
    crop: Box | None
    height: int
    width: int
    rendering: Rendering = STANDARD
    place: Place | None = None  # where the source was seen in its archive

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its pixels."""
        return self.frames, self.height, self.width, 3

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""
        return 3 * self.frames * self.height * self.width

    def places(self) -> list[int]:
        """(frames,) the PTS at which each frame is looked for: that of the last tick at or before its time.

        Raises SourceError for a window that is not within its clip.
        """
        first = self.start_pts + _ticks(self.offset_s, self.time_base)
        step = 1 / (rate(self.fps) * self.time_base)
        places = [int((first + k * step) // 1) for k in range(self.frames)]
        if not places or places[0] < self.start_pts or places[-1] >= self.end_pts:
            length = float((self.end_pts - self.start_pts) * self.time_base)
            raise SourceError(
                f"{self.frames} frames at {self.fps:g} fps from {self.offset_s:.3f} s on are not within "
                f"the {length:.3f} s of the clip"
            )
        return places


@dataclass
class Pixels:
    """A window's pixels.

    `video` is (frames, height, width, 3) uint8 RGB, `pts` the PTS of the source's frame behind each of them,
    `crop` the box of the displayed picture that they show (to a pixel where samples are not square).
    """

    video: np.ndarray
    pts: list[int]
    crop: Box


def rate(fps: float) -> Fraction:
    """Frames a second as they were meant: a number of three decimals, or one of the n/1001 of television."""
    return Fraction(fps).limit_denominator(1001)


def covering(size: tuple[int, int], crop: Box | None, height: int, width: int) -> Box:
    """The middle of the letterbox box that has the aspect of height x width, of a picture of `size` (w, h).

    Even numbers, where there are so many pixels, so that the colour planes are cut in the same place. Raises
    SourceError where the letterbox box is not within the picture.
    """
    x, y, w, h = crop or (0, 0, *size)
    if min(x, y) < 0 or min(w, h) < 1 or x + w > size[0] or y + h > size[1]:
        raise SourceError(f"the crop box {w}x{h} at {x},{y} is not within the picture of {size[0]}x{size[1]}")
    shown_w, shown_h = min(Fraction(w), Fraction(h * width, height)), min(Fraction(h), Fraction(w * height, width))
    x, w = _middle(x, w, shown_w)
    y, h = _middle(y, h, shown_h)
    return x, y, w, h


def _middle(start: int, length: int, shown: Fraction) -> tuple[int, int]:
    """(start, length) of `shown` pixels in the middle of a line, in even numbers where they fit."""
    taken = 2 * round(shown / 2) if length >= 2 else 1
    if taken > length:
        taken -= 2
    taken = max(taken, min(2, length))
    begin = start + (length - taken) // 2
    if begin % 2 and begin > start:
        begin -= 1
    return begin, taken


def _ticks(seconds: float, time_base: Fraction) -> Fraction:
    """Seconds in ticks; a number of ticks that is whole apart from float rounding becomes whole."""
    exact = Fraction(seconds) / time_base
    return Fraction(round(exact)) if abs(exact - round(exact)) < Fraction(1, 10**6) else exact
