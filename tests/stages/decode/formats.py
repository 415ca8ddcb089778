"""The formats that are tested: the tests draw and read each row, and docs/sources.md lists the same rows.

A film of FRAMES frames shows eight patches of plain colour over the number of the frame in black and white blocks, so
that colours, count, order and times can be read back from what any codec makes of it. To add a format, add a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

FRAMES, FPS = 24, 24
WIDTH, HEIGHT = 352, 288  # CIF: the one size that every codec takes
BITS = 5  # blocks that hold the number of a frame
COLOURS = [(200, 30, 30), (30, 200, 40), (40, 50, 210), (230, 220, 50),
           (20, 20, 20), (240, 240, 240), (128, 128, 128), (90, 40, 160)]  # fmt: skip
LIMITED, FULL = 1, 2
MATRICES = {"BT.601": 5, "BT.709": 1, "BT.2020": 9, "FCC": 4, "SMPTE 240M": 7, "BT.601 (525)": 6}


@dataclass(frozen=True)
class Format:
    """One film of the table: how it is written, and what must come back.

    `levels` is the largest difference of a patch's colour, 0 to 255; None where the codec keeps no colours. `within` is
    the largest difference of a frame's time in seconds, beside what the container's tick rounds. `fails` is what users
    read of a format that is not taken.
    """

    container: str  # libav's name of the muxer
    codec: str  # and of the encoder
    pixels: str = "yuv420p"
    levels: int | None = 6
    fps: Fraction = Fraction(FPS)
    size: tuple[int, int] = (WIDTH, HEIGHT)
    matrix: str = "BT.601"
    color_range: int = LIMITED
    options: dict[str, str] = field(default_factory=dict)  # of the encoder
    muxing: dict[str, str] = field(default_factory=dict)  # of the muxer
    turn: tuple[int, bool] = (0, False)  # degrees counter-clockwise, mirrored
    aspect: Fraction = Fraction(1)
    times: tuple[int, ...] | None = None  # of the frames, in milliseconds; None: at the rate
    oddity: str = ""  # what is odd about it, in words
    fails: str = ""

    @property
    def name(self) -> str:
        parts = [self.container, self.codec, self.pixels]
        if (self.matrix, self.color_range) != ("BT.601", LIMITED):
            parts.append(f"{self.matrix}-{'full' if self.color_range == FULL else 'limited'}")
        return "-".join([*parts, *([self.oddity] if self.oddity else [])]).replace(" ", "_")


def picture(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """(h, w, 3) RGB: the patches in two rows, and the frame's number below in black and white blocks."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    rows = height // 3
    for index, colour in enumerate(COLOURS):
        row, column = divmod(index, 4)
        image[row * rows : (row + 1) * rows, column * width // 4 : (column + 1) * width // 4] = colour
    for bit in range(BITS):
        image[2 * rows :, bit * width // BITS : (bit + 1) * width // BITS] = 235 if number >> bit & 1 else 20
    return image


def colours(shown: np.ndarray) -> np.ndarray:
    """(8, 3): the patches' middles."""
    height, width = shown.shape[:2]
    return np.array([shown[(2 * r + 1) * height // 6, (2 * c + 1) * width // 8] for r in (0, 1) for c in range(4)], int)


def number(shown: np.ndarray) -> int:
    """The frame's number as its blocks say."""
    height, width = shown.shape[:2]
    row = shown[5 * height // 6].mean(axis=-1)
    return sum((row[(2 * bit + 1) * width // (2 * BITS)] > 127) << bit for bit in range(BITS))


def stored(rgb: np.ndarray, pixels: str, matrix: int, color_range: int) -> av.VideoFrame:
    """The RGB picture in that pixel format, made by that matrix and range."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
    if pixels == "rgb24":
        return frame
    if pixels == "pal8":
        return frame.reformat(format="rgb8").reformat(format="pal8")
    made = VideoReformatter().reformat(
        frame, format=pixels, dst_colorspace=matrix, dst_color_range=color_range, src_color_range=FULL
    )
    if not pixels.startswith(("rgb", "bgr", "gbr", "0rgb", "argb", "mono", "pal")):
        made.colorspace, made.color_range = matrix, color_range
    return made


def write(path: Path, row: Format, count: int = FRAMES) -> Path:
    """Draws the film of a row."""
    matrix = MATRICES[row.matrix]
    with open(path, "wb") as raw, av.open(raw, "w", format=row.container, options=row.muxing) as out:
        stream: Any = out.add_stream(row.codec, rate=row.fps, options={"strict": "experimental"} | row.options)
        stream.width, stream.height = row.size
        stream.pix_fmt = row.pixels
        stream.bit_rate = 8_000_000
        context = stream.codec_context
        if row.pixels.startswith("yuv") and (row.matrix, row.color_range) != ("BT.601", LIMITED):
            context.colorspace, context.color_range = matrix, row.color_range
        if row.aspect != 1:
            context.sample_aspect_ratio = row.aspect
        if row.turn != (0, False):
            stream.set_display_rotation(row.turn[0], hflip=row.turn[1])
        base = Fraction(1, 1000) if row.times else 1 / row.fps
        if row.times:
            stream.time_base = context.time_base = base
        for index in range(count):
            frame = stored(picture(index, row.size), row.pixels, matrix, row.color_range)
            frame.pts, frame.time_base = row.times[index] if row.times else index, base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path
