"""Reads an animated WebP, which libav can't, by OpenCV: as a whole, or by time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate

import cv2
import numpy as np

from stages.decode.animations import webp_frames
from stages.decode.display import Display
from stages.decode.images import MAX_BYTES, webp_size
from stages.decode.picture_frame import PictureFrame, PictureReader
from stages.decode.reading import SafeFile
from stages.decode.timeline import PacketSizes
from stages.frames import SourceError, SourceInfo

HELD_BYTES = 64 << 20  # pixels that are decoded at once
TICK = Fraction(1, 1000)  # WebP counts milliseconds


class AnimatedWebp(PictureReader):
    """The frames of an animated WebP, in order (`readers.Reader`) and by time (`fetch.Seeker`). Raises SourceError.

    Transparent pixels keep the colour that they have, as those of still images do.
    """

    audio: None = None

    def __init__(self, file: SafeFile):
        self.frames = self.decoded = self.left_out = self.decode_errors = 0
        self.disordered = None
        if (file.size or 0) > MAX_BYTES:
            raise SourceError(f"image file of {file.size} bytes is over the limit of {MAX_BYTES}")
        frames = webp_frames(file)
        file.seek(0)
        data = bytearray(file.read())
        width, height = webp_size(bytes(data[:64]))
        stated = 8 + int.from_bytes(data[4:8], "little")
        self.truncated = None if len(data) >= stated else f"truncated: {len(data)} of {stated} bytes"
        if self.truncated:  # as if it ended with its last whole frame
            del data[frames[-1].end :]
            data[4:8] = (len(data) - 8).to_bytes(4, "little")
        self._data = np.frombuffer(bytes(data), np.uint8)
        self._starts = [0, *accumulate(frame.milliseconds for frame in frames)]  # and the end
        self._sizes = PacketSizes()
        for pts, frame in zip(self._starts, frames, strict=False):
            self._sizes.add(pts, frame.size)
        self._display = Display.of(width, height, Fraction(1), 0, False)
        self._at_once = max(1, HELD_BYTES // (4 * width * height))
        self._held: tuple[int, list[np.ndarray]] = (0, [])  # number of the first, pictures
        seconds = float(self._starts[-1] * TICK)
        self.info = SourceInfo(
            media="video", container="webp", codec="webp", pixel_format="bgr24", width=self._display.width,
            height=self._display.height, rotation=0, sample_aspect_ratio=Fraction(1), fps=len(frames) / seconds,
            duration_s=seconds, time_base=TICK,
        )  # fmt: skip

    def __iter__(self) -> Iterator[PictureFrame]:
        for number in range(len(self._starts) - 1):
            self.frames = number + 1
            yield self._frame(number)

    @property
    def last_end_pts(self) -> int:
        return self._starts[self.frames]

    def packets_bytes(self, start_pts: int, end_pts: int) -> int:
        return self._sizes.take(start_pts, end_pts)

    def frame_at(self, place: int, start_pts: int, end_pts: int) -> PictureFrame:
        last = len(self._starts) - 2
        return self._frame(min(last, max(0, bisect_right(self._starts, max(place, start_pts)) - 1)))

    def next_pts(self, shown: int) -> int | None:
        after = bisect_right(self._starts, shown)
        return self._starts[after] if after < len(self._starts) - 1 else None

    def lost(self, shown: int, place: int) -> set[int | None]:
        return set()

    def ends_at(self, end_pts: int) -> int | None:
        end = self._starts[-1]
        return end if end < end_pts else None

    def close(self) -> None:
        self._held = (0, [])

    def _frame(self, number: int) -> PictureFrame:
        first, pictures = self._held
        if not first <= number < first + len(pictures):
            first = number
            pictures = self._decoded_from(number)
            self.decoded += len(pictures)
            self._held = first, pictures
        pts = self._starts[number]
        return PictureFrame(pictures[number - first], pts, float(pts * TICK), self._display)

    def _decoded_from(self, number: int) -> list[np.ndarray]:
        """(h, w, 3) uint8 BGR of as many frames as are held at once."""
        try:
            found, animation = cv2.imdecodeanimation(self._data, number, self._at_once)
        except cv2.error:
            found = False
        if not found or not animation.frames:
            raise SourceError(f"frame {number} of the animated WEBP can't be decoded")
        return [picture[..., :3].copy() for picture in animation.frames]
