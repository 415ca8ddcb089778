"""Scenes of known movement, drawn at any size and rate: what the tests of the signals look at.

A `DrawnFrame` is a whole `stages.frames.Frame` over an array; nothing of it is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import cv2
import numpy as np

from stages.decode.colour import line_means
from stages.decode.pictures import MadePicture
from stages.frames import SMALL_SIDE, Sample, Span
from stages.measures.base import ClipFacts
from stages.measures.observations import Observations
from stages.scan.samples import Sampler

TICKS = 90_000  # PTS per second


class DrawnFrame:
    """A frame as a reader gives it, of a BGR picture (h, w, 3) at display size."""

    def __init__(self, seconds: float, image: np.ndarray):
        self.pts = round(seconds * TICKS)
        self.seconds = self.pts / TICKS
        self.image = image
        self.pictures_asked = 0

    @property
    def small(self) -> np.ndarray:
        height, width = self.image.shape[:2]
        return self.image if max(height, width) <= SMALL_SIDE else self._scaled(SMALL_SIDE)

    def picture(self, long_side: int) -> np.ndarray:
        self.pictures_asked += 1
        return self._scaled(long_side)

    def kept(self, long_side: int) -> MadePicture:
        return MadePicture(self.picture(long_side))

    def gray(self, long_side: int) -> np.ndarray:
        return cv2.cvtColor(self.picture(long_side), cv2.COLOR_BGR2GRAY)

    def luma_means(self) -> tuple[np.ndarray, np.ndarray]:
        return line_means(cv2.cvtColor(self.image, cv2.COLOR_BGR2GRAY))

    def _scaled(self, long_side: int) -> np.ndarray:
        height, width = self.image.shape[:2]
        scale = long_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return cv2.resize(self.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


@lru_cache
def texture(seed: int = 0, side: int = 2000) -> np.ndarray:
    """A colourful picture (side, side, 3) with detail at every scale, as nature has it."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side, 3), np.float32)
    for grain, strength in ((12, 12), (40, 20), (160, 30), (500, 35)):
        cells = side // grain + 2
        noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        total += strength * cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(total + 120, 0, 255).astype(np.uint8)


def view(x: float, y: float, width: int, height: int, zoom: float = 1.0, seed: int = 0) -> np.ndarray:
    """The texture seen through a window of 960 x 540 texels around (x, y) from its middle, at that size."""
    texels = 960 / zoom
    step = texels / width
    fine = max(1, int(np.ceil(step)))  # drawn finer than the texture, then averaged: no aliasing
    matrix = np.float32(
        [[step / fine, 0, 1000 + x - texels / 2], [0, step / fine, 1000 + y - texels * height / width / 2]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(
        texture(seed), matrix, (width * fine, height * fine), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    return cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)


def film(draw: Callable[[float], np.ndarray], seconds: float, fps: float, start: float = 0.0) -> Iterator[DrawnFrame]:
    """Frames of `draw(seconds)` at a constant rate."""
    for index in range(round(seconds * fps)):
        yield DrawnFrame(start + index / fps, draw(index / fps))


def samples(frames: Iterator[DrawnFrame]) -> list[Sample]:
    sampler = Sampler()
    return [sample for frame in frames if (sample := sampler.observe(frame)) is not None]


def span(start_s: float, end_s: float) -> Span:
    return Span(0, round(start_s * TICKS), round(end_s * TICKS), start_s, end_s)


def facts(start_s: float, end_s: float, width: int = 480, height: int = 270, **more) -> ClipFacts:
    given = {"fps": 24.0, "frames": 48, "packet_bytes": 10_000, "media": "video"} | more
    return ClipFacts(width=width, height=height, start_s=start_s, end_s=end_s, **given)


def measured(frames: Iterator[DrawnFrame], *names: str) -> dict:
    """The columns of these measures for a film that is one clip."""
    observations = Observations(names)
    sampler = Sampler()
    first = last = None
    for frame in frames:
        first, last = first or frame, frame
        if (sample := sampler.observe(frame)) is not None:
            observations.observe(sample)
    end_s = last.seconds + 0.001
    height, width = last.image.shape[:2]
    return observations.close(span(first.seconds, end_s), facts(first.seconds, end_s, width, height))


def noisy(picture: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(picture + rng.normal(0, sigma, picture.shape), 0, 255).astype(np.uint8)
