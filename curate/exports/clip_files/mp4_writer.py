"""Writes RGB frames as the one kind of MP4 that clipmill makes: H.264, yuv420p, BT.709 of limited range, tagged so.

Without tags players guess the matrix by the size, and libswscale's own choice is BT.601 at every size: red would come
back as orange. The index stands before the pictures, so that a player can begin before it has the whole file.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

CRF = 17  # x264's constant rate factor: no visible loss, in small pictures too
BT709, LIMITED, FULL = 1, 1, 2  # ISO/IEC 23091-4; libav's names of the ranges
# Bytes of a container's index: once, and of each frame (duration, offset in time, size, key frame, place).
INDEX_BYTES, INDEX_FRAME_BYTES = 4096, 44


class MP4Writer:
    """Takes frames (height, width, 3) uint8 RGB in order of time. A context manager; without an error inside, the file
    is complete behind it.

    `target` is a path or a binary file that can be sought in. `rate` is frames a second, by which x264 weighs frames;
    times are in `time_base` seconds, by default one tick a frame. `frames` is how many will come, at most. An odd side
    is made even by repeating its last line: yuv420p has one colour for 2 x 2 pixels. Raises OSError of libav's kind
    where the file can't be written.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        size: tuple[int, int],
        rate: Fraction,
        frames: int,
        time_base: Fraction | None = None,
        crf: int = CRF,
        threads: int = 0,
    ):
        width, height = self.size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self.time_base = time_base or 1 / rate
        self.frames = 0
        self._length = 0  # ticks, of all frames so far
        self._held: av.Packet | None = None  # the last one
        self._first_dts: int | None = None
        self._padding = ((0, height - size[1]), (0, width - size[0]), (0, 0))
        self._to_yuv = VideoReformatter()
        self._container = av.open(
            str(target) if isinstance(target, Path) else target, "w", format="mp4", options=index_options(frames)
        )
        # The assembler code of x264's mbtree gives other bytes each time.
        options = {"crf": str(crf), "preset": "medium", "x264-params": "mbtree=0"}
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.time_base, context.thread_count = self.time_base, threads
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED

    def __enter__(self) -> MP4Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._mux(self._stream.encode(None))
                if self._held is not None and self._first_dts is not None:
                    # MP4 adds up durations of decoding: with this one, the sum is the length of what is shown.
                    self._held.duration = self._length - ((self._held.dts or 0) - self._first_dts)
                    self._container.mux(self._held)
        finally:
            self._container.close()

    def add(self, pixels: np.ndarray, pts: int | None = None, duration: int = 1) -> None:
        """One frame, at `pts` (default: the number of the frame) for `duration` ticks; the first is at 0."""
        padded = np.pad(pixels, self._padding, mode="edge") if any(side for _, side in self._padding) else pixels
        frame = self._to_yuv.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24"),
            format="yuv420p", dst_colorspace=BT709, src_color_range=FULL, dst_color_range=LIMITED,
        )  # fmt: skip
        frame.pts, frame.time_base = self.frames if pts is None else pts, self.time_base
        self._mux(self._stream.encode(frame))
        self._length = frame.pts + duration
        self.frames += 1

    def _mux(self, packets: Iterable[av.Packet]) -> None:
        """Writes all but the last packet so far."""
        for packet in packets:
            if self._held is None:
                self._first_dts = packet.dts
            else:
                self._container.mux(self._held)
            self._held = packet


def index_options(frames: int) -> dict[str, str]:
    """Options of libav's MP4 muxer that put the index of so many frames before the pictures."""
    return {"moov_size": str(INDEX_BYTES + INDEX_FRAME_BYTES * frames)}
