"""A frame in PQ or HLG as displayed SDR pixels: planes are brought near the size asked for, mapped, then resized.

Before the map planes are only halved, so that less than four pixels are mapped for each one made; halving mixes
neighbours alone, and the last step averages SDR values, as it does in a film of standard range. The small frame, which
is wanted of every frame of a film, is mapped at its own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import av
import cv2
import numpy as np

from stages.decode.colour import is_hdr, line_means, planar_bits
from stages.decode.display import Display
from stages.decode.planes import Planes, fitted, halve, sized
from stages.decode.rendering import HdrMode
from stages.decode.scaler import Scaler
from stages.decode.tone_map import LUMA_709, HdrColours, hdr_colours
from stages.decode.video_frame import VideoFrame
from stages.frames import Box

SAMPLED = 64  # pixels of a row or column, or up to twice as many, of which its mean is taken where it is long


@dataclass(frozen=True)
class HdrPicture:
    """A picture that is mapped when it is asked for, from planes that were halved to about its size."""

    planes: Sequence[np.ndarray]  # of luma, Cb and Cr
    colours: HdrColours
    size: tuple[int, int]  # (width, height), before turning
    display: Display

    def made(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR."""
        return self.display.turned(_resized(self.colours.mapped(self.planes), self.size))


class HdrFrame(VideoFrame):
    """One decoded frame of PyAV in PQ or HLG (see `stages.frames.Frame`), shown in SDR."""

    __slots__ = ("_bits", "_colours")

    def __init__(self, frame: av.VideoFrame, pts: int, seconds: float, display: Display, scaler: Scaler, mode: HdrMode):
        bits = planar_bits(frame.format.name)
        if bits is None:
            frame, bits = scaler.planar(frame), 16
        super().__init__(frame, pts, seconds, display, scaler)
        self._bits = bits
        self._colours = hdr_colours(frame, bits, mode)

    @property
    def small(self) -> np.ndarray:
        if self._small is None:
            planes, size = self._planes, self._display.stored_small
            self._small = self._display.turned(self._colours.mapped([planes.small(k, size) for k in range(3)]))
        return self._small

    def kept(self, long_side: int) -> HdrPicture:
        size = self._display.stored(self._display.fitted(long_side, upscale=True))
        parts = [part.copy() for part in self._near(size)]
        return HdrPicture(parts, self._colours, size, self._display)

    def cropped(self, box: Box, size: tuple[int, int]) -> np.ndarray:
        stored = self._display.stored(size)
        luma, *colour = self._boxed(box, self._bits)
        while (
            min(luma.shape[1] / stored[0], luma.shape[0] / stored[1]) >= 2 and not (luma.shape[0] | luma.shape[1]) & 1
        ):
            luma = halve(luma)
        image = sized(self._colours.mapped([luma, *colour]), stored)
        return self._display.turned(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def gray(self, long_side: int) -> np.ndarray:
        size = self._display.stored(self._display.fitted(long_side, upscale=True))
        return self._display.turned(_resized(self._luma(self._near(size)), size))

    def luma_means(self) -> tuple[np.ndarray, np.ndarray]:
        display, planes = self._display, self._planes
        rows, _ = line_means(self._luma([_thinned(planes.whole(k), 1, planes.whole(0)) for k in range(3)]))
        _, columns = line_means(self._luma([_thinned(planes.whole(k), 0, planes.whole(0)) for k in range(3)]))
        stored = display.stored_width, display.stored_height
        if (len(columns), len(rows)) != stored:  # the frame has another size than the film
            rows = cv2.resize(rows[:, None], (1, stored[1])).ravel()
            columns = cv2.resize(columns[:, None], (1, stored[0])).ravel()
        return display.turned_means(rows, columns)

    @property
    def _planes(self) -> Planes:
        return self._scaler.planes.of(self._frame, self._bits)

    def _near(self, size: tuple[int, int]) -> list[np.ndarray]:
        """Luma at one to two times the size, and colour at that or what there is; valid until the next frame."""
        return [self._planes.halved(k, size) for k in range(3)]

    def _luma(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        """(h, w) uint8 luma of the mapped picture, by the weights of BT.709."""
        return cv2.transform(self._colours.mapped(planes), LUMA_709)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture at `size` (width, height): areas averaged where it shrinks, bilinear where it grows."""
    return fitted(image, size, exact=image.shape[1] > size[0])


def _thinned(plane: np.ndarray, axis: int, luma: np.ndarray) -> np.ndarray:
    """Every n-th line of a plane along an axis, so that the luma plane keeps at least SAMPLED of them, or all."""
    step = luma.shape[axis] // SAMPLED if luma.shape[axis] > 4 * SAMPLED else 1
    apart = max(1, step * plane.shape[axis] // luma.shape[axis])
    return plane[::apart] if axis == 0 else plane[:, ::apart]


def displayable(
    frame: av.VideoFrame, pts: int, tick: float, display: Display, scaler: Scaler, hdr: HdrMode
) -> VideoFrame:
    """The frame at `pts` ticks of `tick` seconds; one in PQ or HLG is mapped unless it is to be left as it is."""
    if hdr != "leave" and is_hdr(frame):
        return HdrFrame(frame, pts, pts * tick, display, scaler, hdr)
    return VideoFrame(frame, pts, pts * tick, display, scaler)
