"""A frame decoded by PyAV as displayed pixels: the small frame of every detector, pictures, crops, luma.

The small frame is wanted for every frame of a film, so it never touches full-size colour: `stages.decode.planes`
brings each plane to its size, and only the small result is turned into BGR. A picture that may never be asked for is
kept as planes.
"""

from __future__ import annotations

import av
import cv2
import numpy as np

from stages.decode.colour import (
    frame_to_bgr,
    is_full_range,
    line_means,
    luma_table,
    matrix_of,
    planar_bits,
    to_bgr,
)
from stages.decode.display import Display
from stages.decode.pictures import KeptPicture, MadePicture
from stages.decode.planes import sized
from stages.decode.scaler import Scaler
from stages.decode.stored_pixels import stored_hash
from stages.frames import Box, Kept


class VideoFrame:
    """One decoded frame of PyAV, made displayable (see `stages.frames.Frame`)."""

    __slots__ = ("_display", "_frame", "_scaler", "_small", "pts", "seconds")

    def __init__(self, frame: av.VideoFrame, pts: int, seconds: float, display: Display, scaler: Scaler):
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
            bits = planar_bits(frame.format.name)
            if bits:  # 2 to 3 times cheaper than by libswscale
                planes = self._scaler.planes.of(frame, bits)
                parts = [planes.small(k, size) for k in range(3)]
                image = to_bgr(parts, bits, frame_to_bgr(frame))
            else:
                image = self._scaled(size, "bgr24")
            self._small = self._display.turned(image)
        return self._small

    def picture(self, long_side: int) -> np.ndarray:
        """(h, w, 3) uint8 BGR with that long side, up- or downscaled."""
        return self.kept(long_side).made()

    def kept(self, long_side: int) -> Kept:
        """`picture`, to be made later or never; it refers to no buffer of the frame."""
        frame, display = self._frame, self._display
        size = display.stored(display.fitted(long_side, upscale=True))
        bits = planar_bits(frame.format.name)
        if not bits:
            return MadePicture(display.turned(self._scaled(size, "bgr24")))
        planes = self._scaler.planes.of(frame, bits)
        parts = (planes.halved(0, size), planes.halved(1, size, 1), planes.halved(2, size, 1))
        luma, blue, red = (part.copy() for part in parts)
        return KeptPicture((luma, blue, red), bits, frame_to_bgr(frame), size, display)

    def cropped(self, box: Box, size: tuple[int, int]) -> np.ndarray:
        """(h, w, 3) uint8 RGB: the box of the displayed picture at `size` (width, height)."""
        frame, display = self._frame, self._display
        stored = display.stored(size)
        bits = planar_bits(frame.format.name)
        if bits:
            parts = [sized(part, stored, self._scaler.average) for part in self._boxed(box, bits)]
            return display.turned(to_bgr(parts, bits, frame_to_bgr(frame)[::-1]))
        x, y, w, h = display.stored_box(box, frame.width, frame.height)
        bgr = self._scaled((frame.width, frame.height), "bgr24")
        return display.turned(cv2.cvtColor(sized(bgr[y : y + h, x : x + w], stored), cv2.COLOR_BGR2RGB))

    def gray(self, long_side: int) -> np.ndarray:
        """(h, w) uint8 full-range luma with that long side, up- or downscaled."""
        frame, display = self._frame, self._display
        size = display.stored(display.fitted(long_side, upscale=True))
        if planar_bits(frame.format.name) == 8 and frame.width >= 2 * size[0]:
            half = self._scaler.planes.of(frame, 8).halved(0, size)
            if half.shape[1::-1] == size:  # halving averages areas exactly
                return display.turned(cv2.LUT(half, luma_table(is_full_range(frame))))
        return display.turned(self._scaled(size, "gray"))

    def stored_hash(self) -> bytes | None:
        """`stored_pixels.stored_hash` of the frame."""
        return stored_hash(self._frame)

    def luma_means(self) -> tuple[np.ndarray, np.ndarray]:
        """Means of the full-range luma by row (h,) and by column (w,) float32: stored size, turned."""
        frame, display = self._frame, self._display
        bits = planar_bits(frame.format.name)
        if bits and (frame.width, frame.height) == (display.stored_width, display.stored_height):
            luma = self._scaler.planes.of(frame, bits).whole(0)
            full = is_full_range(frame)
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

    def _boxed(self, box: Box, bits: int) -> list[np.ndarray]:
        """The box of the displayed picture, cut out of the planes of luma, Cb and Cr."""
        frame, planes = self._frame, self._scaler.planes.of(self._frame, bits)
        rows, columns = planes.whole(1).shape
        across, down = -(-frame.width // columns), -(-frame.height // rows)  # luma pixels per chroma pixel
        x, y, w, h = self._display.stored_box(box, frame.width, frame.height, (across, down))
        luma = planes.whole(0)[y : y + h, x : x + w]
        colour = slice(y // down, -(-(y + h) // down)), slice(x // across, -(-(x + w) // across))
        return [luma, planes.whole(1)[colour], planes.whole(2)[colour]]

    def _scaled(self, size: tuple[int, int], name: str) -> np.ndarray:
        return self._scaler.scaled(self._frame, size, name, matrix_of(self._frame), is_full_range(self._frame))
