"""What travels inside the decode pass: the header of a source, its frames, and the samples taken of them.

Only PTS are time. Pixels are always *as displayed*: rotation applied, sample aspect ratio squared, luma in
full range (0-255). Everything here is numpy; nothing here decodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np

SMALL_SIDE = 128  # long side of the frame that every detector sees, pixels
SAMPLE_SIDE = 480  # long side of the sampled frames that signals are measured on, pixels
LEVEL_SECONDS = 0.001  # one step of the levels of sound
SAMPLE_SECONDS = 0.5  # one sample every half second of PTS: 2 fps whatever the source's rate

Box = tuple[int, int, int, int]  # x, y, width, height; pixels as displayed, unless said otherwise


class SourceError(Exception):
    """A source that can't be taken, with the reason that goes into `sources.reason` (one line)."""


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a source says of its sound."""

    codec: str  # FFmpeg's name of the coding, 'unknown' where it has none
    channels: int | None  # None where the header does not say
    rate: int | None  # samples per second


@dataclass(frozen=True)
class Levels:
    """A stretch of sound without a gap as levels, a value for each step of LEVEL_SECONDS: two arrays (n,) float32.

    `power` is the mean square of the K-weighted samples, summed over the channels with the weights of ITU-R BS.1770;
    `peak` is the greatest absolute sample of any channel, 1 being full scale. The first step is `start_s` seconds
    after the clip's start.
    """

    start_s: float
    power: np.ndarray
    peak: np.ndarray


@dataclass(frozen=True)
class ClipAudio:
    """The sound of a clip."""

    stretches: list[Levels]
    unknown: str | None = None  # why the sound of this clip is not known


@dataclass(frozen=True)
class SourceInfo:
    """What the header of a source says; width and height are as displayed."""

    media: str  # 'video' or 'image'
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int  # degrees clockwise that were applied: 0, 90, 180, 270
    sample_aspect_ratio: Fraction
    fps: float | None  # average, from the header; None where it says nothing
    duration_s: float | None  # what the header claims; None where it says nothing
    time_base: Fraction
    video_stream: int = 0  # index in the container of the stream that is read
    video_streams: int = 1  # there are so many, attached pictures aside
    audio: AudioInfo | None = None  # of the stream that belongs to the video; None without sound
    bit_depth: int = 8  # of a stored value
    # FFmpeg's names; None where the source does not say.
    color_transfer: str | None = None
    color_primaries: str | None = None
    color_matrix: str | None = None
    hdr: bool = False  # whether its transfer is PQ or HLG


class Kept(Protocol):
    """A picture that is made when it is asked for."""

    def made(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR."""


class SmallFrame(Protocol):
    """What detectors of cuts see of a frame."""

    @property
    def pts(self) -> int: ...

    @property
    def seconds(self) -> float:
        """pts * time_base"""

    @property
    def small(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR, long side SMALL_SIDE (never upscaled), area-averaged; cached."""


class Frame(SmallFrame, Protocol):
    """One decoded frame. Its methods cost pixels, so ask only when needed.

    A frame's buffers are valid only until the reader is asked for the next one; `small` and what the methods
    return are copies and may be kept.
    """

    def picture(self, long_side: int) -> np.ndarray:
        """(h, w, 3) uint8 BGR with that long side, colours by the frame's own matrix and range."""

    def kept(self, long_side: int) -> Kept:
        """That picture, to be made later or never; it holds nothing of the frame's buffers."""

    def cropped(self, box: Box, size: tuple[int, int]) -> np.ndarray:
        """(h, w, 3) uint8 RGB: the box of the displayed picture at `size` (width, height)."""

    def gray(self, long_side: int) -> np.ndarray:
        """(h, w) uint8 luma with that long side, full range."""

    def luma_means(self) -> tuple[np.ndarray, np.ndarray]:
        """Means of the full-size luma by row (height,) and by column (width,): float32, full range, before
        squaring pixels.
        """


@dataclass
class Sample:
    """A frame taken for measuring, at most one per SAMPLE_SECONDS.

    `gray` is luma (h, w) uint8 with long side exactly SAMPLE_SIDE (small sources are upscaled, so that
    figures compare across resolutions). `small` is the frame's small BGR picture (h, w, 3) uint8.
    `row_luma` (height,) and `column_luma` (width,) float32 are means of the full-size luma by row and column.
    `trail` holds up to three small gray frames (h, w) with their seconds, oldest first, 1/12 s apart or a
    little more, ending with this one: fast movement can be told from slow in it. `step_flow` keeps the flow
    between its last two, which more than one measure wants (see measures.flow).
    """

    pts: int
    seconds: float
    small: np.ndarray
    gray: np.ndarray
    row_luma: np.ndarray
    column_luma: np.ndarray
    trail: list[tuple[float, np.ndarray]] = field(default_factory=list)
    step_flow: np.ndarray | None = None


@dataclass(frozen=True)
class Span:
    """A clip's place in its source: frames with start_pts <= pts < end_pts."""

    scene: int  # index of the scene it was cut from
    start_pts: int
    end_pts: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class FrameRequest:
    """The frames of each clip that a later stage wants: at these shares of its length, so large."""

    positions: tuple[float, ...]
    long_side: int


Picture = tuple[float, np.ndarray]  # seconds of its PTS, (h, w, 3) uint8 BGR
Frames = dict[FrameRequest, list[Picture]]  # the frames of one clip, by who asked for what
