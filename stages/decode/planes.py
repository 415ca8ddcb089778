"""The planes of a decoded frame and their halves, from which every smaller picture of the frame is made.

A plane is halved by 2x2 boxes, which OpenCV does at memory speed; only the last step to a size that is no half costs
more. The halves are kept until the next frame comes, so that the small frame, the gray one and the picture of one
frame share them. Their memory is used again, so that it stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable

import av
import cv2
import numpy as np
from av.video.plane import VideoPlane

TINY = 16  # a side of fewer pixels is averaged exactly
ROWS_READ = 8  # of a large frame, lines of luma read for each line of the small one; half as many of colour


def plane_view(plane: VideoPlane, width: int, height: int, bits: int, channels: int = 1) -> np.ndarray:
    """A view (no copy) of a decoder's plane: (height, width[, channels]), line padding left out."""
    values = np.frombuffer(memoryview(plane), np.uint8 if bits == 8 else np.uint16)
    rows = values.reshape(height, -1)[:, : width * channels]
    if plane.line_size < 0:  # stored bottom-up
        rows = np.ascontiguousarray(rows[::-1])
    return rows if channels == 1 else rows.reshape(height, width, channels)


class Planes:
    """Y, Cb and Cr of the last frame, at any size. Each reader has one."""

    def __init__(self) -> None:
        self._frame: av.VideoFrame | None = None
        self._levels: list[list[np.ndarray]] = []  # of each plane: whole, half, quarter, ...
        self._buffers: dict[tuple[int, int, int], np.ndarray] = {}  # by plane, lines left out, level

    def of(self, frame: av.VideoFrame, bits: int) -> Planes:
        """This object with the planes of a planar frame that has so many bits a value."""
        if frame is not self._frame:
            self._frame = frame
            planes = frame.planes
            width, height = planes[1].width, planes[1].height
            self._levels = [[plane_view(planes[0], frame.width, frame.height, bits)]]
            self._levels += [[plane_view(plane, width, height, bits)] for plane in planes[1:3]]
        return self

    def whole(self, plane: int) -> np.ndarray:
        return self._levels[plane][0]

    def halved(self, plane: int, size: tuple[int, int], within: int = 2) -> np.ndarray:
        """The first half that is less than `within` times `size` (width, height) on a side.

        A view that is valid until the next frame is given.
        """
        return self._down(plane, 1, self._levels[plane], size, within)

    def small(self, plane: int, size: tuple[int, int]) -> np.ndarray:
        """The plane at a smaller or the same `size` (width, height), cheap enough for every frame.

        Of a large frame, where reading memory is the cost, ROWS_READ lines are read for each line made.
        """
        whole = self._levels[plane][0]
        lines = ROWS_READ if plane == 0 else ROWS_READ // 2
        apart, tiny = whole.shape[0] // (lines * size[1]), min(size) < TINY
        if apart > 1 and not tiny:
            within = 4
            base = self._down(plane, apart, [whole[apart // 2 :: apart]], size, 2)
        else:
            within = 2 if plane == 0 else 4
            base = self._down(plane, 1, self._levels[plane], size, within)
        wide = base.shape[1] >= within * size[0] or base.shape[0] >= within * size[1]
        return fitted(base, size, exact=tiny or wide)

    def _down(self, plane: int, apart: int, levels: list[np.ndarray], size: tuple[int, int], within: int) -> np.ndarray:
        if min(size) < TINY:
            return levels[0]
        for level, half in enumerate(levels):
            height, width = half.shape
            if width < within * size[0] or height < within * size[1]:
                return half
            if level + 1 == len(levels):
                key = (plane, apart, level)
                made = halve(half, self._buffers.get(key))
                self._buffers[key] = made
                levels.append(made)  # the next turn of the loop looks at it
        raise AssertionError("a picture that is never small enough")


def halve(plane: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
    """The plane (h, w[, c]) averaged over 2x2 boxes; an odd last line is dropped to keep OpenCV's fast path."""
    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    if into is not None and (into.shape[:2] != (height, width) or into.dtype != plane.dtype):
        into = None
    return cv2.resize(plane[: 2 * height, : 2 * width], (width, height), dst=into, interpolation=cv2.INTER_AREA)


def fitted(plane: np.ndarray, size: tuple[int, int], *, exact: bool) -> np.ndarray:
    """The plane (h, w[, c]) at `size` (width, height): exact area averages, or bilinear; itself at that size."""
    if plane.shape[1::-1] == size:
        return plane
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA if exact else cv2.INTER_LINEAR)


def resized(plane: np.ndarray, size: tuple[int, int], *, within: int = 2) -> np.ndarray:
    """The plane (h, w[, c]) at `size` (width, height): 2x2 boxes down to less than `within` times the size, then
    bilinear. With `within` 2 every source pixel has a weight.
    """
    tiny = min(size) < TINY
    while not tiny and plane.shape[1] >= within * size[0] and plane.shape[0] >= within * size[1]:
        plane = halve(plane)
    wide = plane.shape[1] >= within * size[0] or plane.shape[0] >= within * size[1]
    return fitted(plane, size, exact=tiny or wide)


def average(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The plane (h, w[, c]) at a smaller `size` (width, height): exact area averages."""
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)


def sized(
    plane: np.ndarray, size: tuple[int, int], shrink: Callable[[np.ndarray, tuple[int, int]], np.ndarray] = average
) -> np.ndarray:
    """The plane (h, w[, c]) at `size` (width, height): areas averaged where it shrinks, bicubic where it grows.

    `shrink` averages. Much larger planes are halved first, which is cheaper and hardly differs.
    """
    width, height = size
    while plane.shape[1] >= 4 * width and plane.shape[0] >= 4 * height and not (plane.shape[0] | plane.shape[1]) & 1:
        plane = halve(plane)
    least = (min(width, plane.shape[1]), min(height, plane.shape[0]))
    if plane.shape[1::-1] != least:
        plane = shrink(plane, least)
    return plane if least == size else cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC)
