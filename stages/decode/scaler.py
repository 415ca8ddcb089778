"""Resizes decoded frames, and single planes of them, with libswscale."""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stages.decode.colour import is_full_range, luma_table, matrix_of
from stages.decode.planes import TINY, Planes, average, plane_view, resized


class Scaler:
    """Turns a frame of any pixel format into gray or BGR of any size. Each reader has one.

    libswscale averages areas exactly at the cost of a bilinear resize, but a call costs more than OpenCV's, so the
    small frame that is made of every frame is made by `Planes`. Each output format and size has its own context.
    """

    def __init__(self) -> None:
        self.planes = Planes()  # of frames that have planes of Y, Cb and Cr
        self._contexts: dict[tuple[int, int, str], VideoReformatter] = {}

    def scaled(self, frame: av.VideoFrame, size: tuple[int, int], name: str, matrix: int, full: bool) -> np.ndarray:
        """The decoder's frame at `size` (width, height) as 'gray' (h, w) or 'bgr24' (h, w, 3), full range."""
        stored = (frame.width, frame.height)
        shrinks = size[0] < stored[0] or size[1] < stored[1]
        if shrinks and min(size) < TINY:  # at such sizes libswscale picks pixels instead of averaging
            return resized(self.scaled(frame, stored, name, matrix, full), size)
        key = (*size, name)
        context = self._contexts.setdefault(key, VideoReformatter())
        is_rgb = frame.format.is_rgb or "pal" in frame.format.name
        # For gray both matrices are the same, so that libswscale does not convert luma from one to the other.
        matrix = 5 if name == "gray" else {1: 1, 7: 7, 9: 9, 10: 9}.get(matrix, 5)
        made = context.reformat(
            frame,
            width=size[0],
            height=size[1],
            format=name,
            src_colorspace=None if is_rgb else matrix,
            dst_colorspace=5 if name == "gray" else None,
            src_color_range=None if is_rgb else (2 if full else 1),
            dst_color_range=2,
            interpolation="AREA" if shrinks else "BILINEAR",
            threads=1,
        )
        image = plane_view(made.planes[0], *size, 8, 3 if name == "bgr24" else 1)
        if frame.format.name.startswith("gray") and not full:  # libswscale takes all gray for full range
            return cv2.LUT(image, luma_table(full_range=False))
        return image.copy()

    def planar(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame without planes of Y, Cb and Cr as 'yuv444p16le', in BT.2020 where it was RGB."""
        is_rgb = frame.format.is_rgb
        full = is_rgb or frame.format.name.startswith("gray")  # what libswscale takes them for
        color_range = 2 if full or is_full_range(frame) else 1
        made = self._contexts.setdefault((frame.width, frame.height, "planar"), VideoReformatter()).reformat(
            frame,
            format="yuv444p16le",
            src_colorspace=None if is_rgb else 9,
            dst_colorspace=9,
            src_color_range=color_range,
            dst_color_range=color_range,
            threads=1,
        )
        made.colorspace = 9 if is_rgb else matrix_of(frame)
        made.color_range = 2 if is_rgb or is_full_range(frame) else 1
        made.color_trc, made.color_primaries = frame.color_trc, frame.color_primaries
        return made

    def average(self, plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """`planes.average` at a fifth of its cost, where libswscale knows such a plane."""
        if plane.dtype != np.uint8 or min(*size, *plane.shape) < TINY:
            return average(plane, size)
        context = self._contexts.setdefault((*size, "plane"), VideoReformatter())
        made = context.reformat(
            av.VideoFrame.from_numpy_buffer(plane, "gray", plane.shape[1]),
            width=size[0],
            height=size[1],
            format="gray",
            src_color_range=2,
            dst_color_range=2,
            interpolation="AREA",
            threads=1,
        )
        return plane_view(made.planes[0], *size, 8)
