"""A frame of which the pixels are there already, of a still image or from decord, as displayed pixels."""

from __future__ import annotations

import cv2
import numpy as np

from stages.decode.colour import line_means
from stages.decode.display import Display
from stages.decode.pictures import MadePicture
from stages.decode.planes import resized, sized
from stages.frames import Box


class PictureFrame:
    """A frame (see `stages.frames.Frame`) of BGR pixels (h, w, 3) uint8 in the stored size."""

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
            image = resized(self._bgr, self._display.stored_small)
            self._small = self._display.turned(image.copy() if image is self._bgr else image)
        return self._small

    def picture(self, long_side: int) -> np.ndarray:
        size = self._display.stored(self._display.fitted(long_side, upscale=True))
        shrinks = size[0] < self._bgr.shape[1] or size[1] < self._bgr.shape[0]
        image = cv2.resize(self._bgr, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return self._display.turned(image)

    def kept(self, long_side: int) -> MadePicture:
        return MadePicture(self.picture(long_side))

    def cropped(self, box: Box, size: tuple[int, int]) -> np.ndarray:
        x, y, w, h = self._display.stored_box(box, self._bgr.shape[1], self._bgr.shape[0])
        image = sized(self._bgr[y : y + h, x : x + w], self._display.stored(size))
        return self._display.turned(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def gray(self, long_side: int) -> np.ndarray:
        return cv2.cvtColor(self.picture(long_side), cv2.COLOR_BGR2GRAY)

    def luma_means(self) -> tuple[np.ndarray, np.ndarray]:
        luma = cv2.cvtColor(self._bgr, cv2.COLOR_BGR2GRAY)
        size = (self._display.stored_width, self._display.stored_height)
        return self._display.turned_means(*line_means(luma if luma.shape == size[::-1] else cv2.resize(luma, size)))


class PictureReader:
    """What readers of pictures say of fields and damage: there is none."""

    @property
    def field_order(self) -> None:
        return None

    @property
    def has_interlaced(self) -> bool:
        return False

    def damaged_frames(self, start_pts: int, end_pts: int) -> int:
        return 0
