"""The model of a cross-fade: is a run of frames a mix of its first and its last frame, and where does it begin and end?

In a cross-fade every frame is (1 - a) A + a B with a rising from 0 to 1. Two things follow, and pans, zooms
and moving things fail at least one of them: on tiny frames each frame lies near the line from A to B, and
the energy of the gradients sags in the middle, because fine detail of two different pictures does not line
up: (1 - a)|gA|^2 + a|gB|^2 - |g|^2 = a (1 - a)|gA - gB|^2 (the falling contrast of Alattar 1993 and
Lienhart 1999, taken on gradients, where movement does not disturb it). A fade to or from a flat picture is
the same with B flat.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

TINY = (16, 9)  # (w, h) of the colour frames that the line is fitted on: small enough to forgive movement
GRAY = (64, 36)  # (w, h) of the frames whose gradients are compared, as sharp as telling movement takes
FLAT = 5.0  # standard deviation of the luma of a picture that shows nothing
SAMPLES = 9  # frames looked at in a window of any length
RAMP_STEPS = 25  # places tried for either end of a ramp


class FrameFeatures:
    """One frame of the history: its reduced picture, and features of it that are computed when first used."""

    __slots__ = ("_centred", "_energy", "_gray", "_reduced", "_tiny", "deviation", "next_pts", "pts", "seconds")

    def __init__(self, pts: int, seconds: float, reduced: np.ndarray):
        self.pts = pts
        self.seconds = seconds
        self.next_pts: int | None = None  # of the next frame of the source, whether the history keeps it or not
        self.deviation: float | None = None  # of its luma within the letterbox, once FrameHistory has computed it
        self._reduced = reduced
        self._tiny: np.ndarray | None = None
        self._centred: tuple[np.ndarray, float] | None = None
        self._gray: np.ndarray | None = None
        self._energy: float | None = None

    @property
    def tiny(self) -> np.ndarray:
        """(432,) float32 BGR."""
        if self._tiny is None:
            tiny = cv2.resize(self._reduced, TINY, interpolation=cv2.INTER_AREA)
            self._tiny = tiny.reshape(-1).astype(np.float32)
        return self._tiny

    @property
    def centred(self) -> tuple[np.ndarray, float]:
        """`tiny` less its mean, and the sum of its squares."""
        if self._centred is None:
            self._centred = _centred(self.tiny)
        return self._centred

    @property
    def gray(self) -> np.ndarray:
        """(36, 64) uint8."""
        if self._gray is None:
            self._gray = cv2.cvtColor(self._reduced, cv2.COLOR_BGR2GRAY)
        return self._gray

    @property
    def energy(self) -> float:
        """The sum of the squared gradients of `gray`."""
        if self._energy is None:
            self._energy = _gradients(self.gray)
        return self._energy


def shrink(small: np.ndarray) -> np.ndarray:
    """(36, 64, 3) uint8 BGR of a Frame's `small`, whatever its aspect."""
    height, width = small.shape[:2]
    half = (width, height) == (2 * GRAY[0], 2 * GRAY[1])  # boxes of four, which OpenCV averages fast
    nearly = width <= 2.2 * GRAY[0] and height <= 2.2 * GRAY[1]  # where bilinear weighs every pixel too
    return cv2.resize(small, GRAY, interpolation=cv2.INTER_LINEAR if nearly and not half else cv2.INTER_AREA)


def _gradients(gray: np.ndarray) -> float:
    across = cv2.norm(gray[:, 1:], gray[:, :-1], cv2.NORM_L2SQR)
    return across + cv2.norm(gray[1:], gray[:-1], cv2.NORM_L2SQR)


class Fit(NamedTuple):
    """How well the frames between two anchors are a mix of them.

    `change` is the distance of the anchors (RMS of pixel values), `likeness` their correlation, `residual`
    the mean squared distance of the frames from the line, in squared distances of the anchors (0 in a pure
    blend), `step` the largest part of the way gone between two frames looked at, `back` the part gone
    backwards.
    """

    change: float
    likeness: float
    residual: float
    step: float
    back: float


def likeness(one: np.ndarray, two: np.ndarray) -> float:
    """Correlation of two tiny frames of any shape, -1 to 1; 0 where one of them is a single tone."""
    return correlation(_centred(one.reshape(-1)), _centred(two.reshape(-1)))


def correlation(one: tuple[np.ndarray, float], two: tuple[np.ndarray, float]) -> float:
    """The likeness of two frames, from their `centred`."""
    return float(one[0] @ two[0]) / ((one[1] + 1.0) * (two[1] + 1.0)) ** 0.5


def _centred(tiny: np.ndarray) -> tuple[np.ndarray, float]:
    centred = tiny - np.add.reduce(tiny) / len(tiny)  # its `mean` costs four times as much
    return centred, float(centred @ centred)


def line_fit(tiny: np.ndarray, alike: float | None = None) -> tuple[Fit, np.ndarray]:
    """The fit of frames (k, 432) to the line from the first to the last, and their places on it (k,).

    `alike` is the likeness of the two ends where it is known already.
    """
    off, places, length = _onto_line(tiny)
    # Squared distance from the line, by Pythagoras: squared offsets from the first frame less those along the line.
    inner, along = off[1:-1].reshape(-1), places[1:-1]
    beside = float(inner @ inner) - float(along @ along) * length
    step, back, last = 0.0, 0.0, 0.0
    for place in places.tolist():
        gone = place - last
        last = place
        if gone > step:
            step = gone
        elif gone < 0:
            back -= gone
    fit = Fit(
        change=(length / tiny.shape[1]) ** 0.5,
        likeness=likeness(tiny[0], tiny[-1]) if alike is None else alike,
        residual=max(0.0, beside) / length / max(1, len(along)),
        step=step,
        back=back,
    )
    return fit, places


def line_places(tiny: np.ndarray) -> np.ndarray:
    """The places of frames (k, 432) on the line from the first (0) to the last (1), as in `line_fit`."""
    return _onto_line(tiny)[1]


def _onto_line(tiny: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The ways (k, 432) from the first frame, their places on the line (k,), its squared length."""
    off = tiny - tiny[0]
    way = off[-1]
    length = float(way @ way) + 1e-6
    return off, off @ way / length, length


def sag(
    first: FrameFeatures, last: FrameFeatures, energies: list[float], places: np.ndarray, apart: float | None = None
) -> float:
    """How far the gradient energy of the frames (k,) sags below the line between its ends: 1 in a blend, 0 in a pan.

    `apart` is the squared distance of the gradients of the two ends; computed where it is not given.
    """
    if apart is None:
        apart = _gradients(last.gray.astype(np.float32) - first.gray)
    begin, end, along, full = energies[0], energies[-1], 0.0, 1e-6
    for place, energy in zip(places.tolist(), energies, strict=True):
        a = min(1.0, max(0.0, place))
        expected = a * (1.0 - a) * apart
        along += ((1.0 - a) * begin + a * end - energy) * expected
        full += expected * expected
    return along / full


@lru_cache(maxsize=1)
def _ramps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Begins and ends (n,) of all ramps that are tried, as shares of the time, and one over their lengths."""
    ends = np.linspace(0.0, 1.0, RAMP_STEPS, dtype=np.float32)
    begin, end = np.meshgrid(ends, ends, indexing="ij")
    rises = end > begin
    begin, end = begin[rises], end[rises]
    return begin, end, (1 / (end - begin)).astype(np.float32)


def ramp_fit(seconds: np.ndarray, places: np.ndarray) -> tuple[float, float, float]:
    """(begin, end, error) of the ramp clip((t - begin) / (end - begin), 0, 1) nearest to `places`; the error is RMS."""
    begin, end, slope = _ramps()
    since, whole = seconds[0], seconds[-1] - seconds[0]
    model = ((seconds - since) / whole).astype(np.float32) - begin[:, None]  # (ramps, k)
    model *= slope[:, None]
    np.maximum(model, 0.0, out=model)
    np.minimum(model, 1.0, out=model)
    model -= places.astype(np.float32, copy=False)
    error = np.einsum("ij,ij->i", model, model)
    best = int(error.argmin())
    return (
        float(since + float(begin[best]) * whole),
        float(since + float(end[best]) * whole),
        (float(error[best]) / len(seconds)) ** 0.5,
    )
