"""The blend model: is a run of frames a mix of its first and its last frame, and where does the mix begin
and end.

In a cross-fade every frame is (1 - a) A + a B with a rising from 0 to 1. Two things follow, and pans, zooms
and moving things fail at least one of them: on tiny frames each frame lies near the line from A to B, and
the energy of the gradients sags in the middle, because fine detail of two different pictures does not line
up: (1 - a)|gA|^2 + a|gB|^2 - |g|^2 = a (1 - a)|gA - gB|^2 (the falling contrast of Alattar 1993 and
Lienhart 1999, taken on gradients, where movement does not disturb it). A fade to or from a flat picture is
the same with B flat.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

TINY = (16, 9)  # (w, h) of the colour frames that the line is fitted on: small enough to forgive movement
GRAY = (64, 36)  # (w, h) of the frames whose gradients are compared, as sharp as telling movement takes
FLAT = 5.0  # standard deviation of the luma of a picture that shows nothing
SAMPLES = 9  # frames looked at in a window of any length
RAMP_STEPS = 25  # places tried for either end of a ramp


@dataclass(slots=True)
class Look:
    """What is remembered of one frame."""

    pts: int
    seconds: float
    tiny: np.ndarray  # (432,) float32 BGR
    gray: np.ndarray  # (36, 64) uint8
    energy: float  # sum of the squared gradients of `gray`
    after: int | None = None  # pts of the frame right after this one, kept or not


def shrink(small: np.ndarray) -> np.ndarray:
    """(36, 64, 3) uint8 BGR of a Frame's `small`, whatever its aspect."""
    return cv2.resize(small, GRAY, interpolation=cv2.INTER_AREA)


def look(frame, middle: np.ndarray) -> Look:
    """What the model needs of a frame and its `shrink`, about 20 us."""
    tiny = cv2.resize(middle, TINY, interpolation=cv2.INTER_AREA).reshape(-1).astype(np.float32)
    gray = cv2.cvtColor(middle, cv2.COLOR_BGR2GRAY)
    across = cv2.norm(gray[:, 1:], gray[:, :-1], cv2.NORM_L2SQR)
    down = cv2.norm(gray[1:], gray[:-1], cv2.NORM_L2SQR)
    return Look(frame.pts, frame.seconds, tiny, gray, across + down)


@dataclass(frozen=True)
class Fit:
    """How well the frames between two anchors are a mix of them.

    `change` is the distance of the anchors (RMS of pixel values), `likeness` their correlation, `residual`
    the mean squared distance of the frames from the line, in squared distances of the anchors (0 in a pure
    blend), `sag` the missing gradient energy (1 in a blend, 0 where the picture moves), `step` the largest
    part of the way gone between two frames looked at, `back` the part gone backwards.
    """

    change: float
    likeness: float
    residual: float
    step: float
    back: float


def likeness(one: np.ndarray, two: np.ndarray) -> float:
    """Correlation of two tiny frames of any shape, -1 to 1; 0 where one of them is a single tone."""
    a, b = (one - one.mean()).reshape(-1), (two - two.mean()).reshape(-1)
    return float(a @ b) / float(np.sqrt((a @ a + 1.0) * (b @ b + 1.0)))


def line_fit(tiny: np.ndarray, alike: float | None = None) -> tuple[Fit, np.ndarray]:
    """The fit of frames (k, 432) to the line from the first to the last, and their places on it (k,).

    `alike` is the likeness of the two ends where it is known already.
    """
    first, last = tiny[0], tiny[-1]
    way = last - first
    length = float(way @ way) + 1e-6
    off = tiny - first
    places = off @ way / length
    rest = off[1:-1] - places[1:-1, None] * way
    steps = places[1:] - places[:-1]
    fit = Fit(
        change=(length / len(way)) ** 0.5,
        likeness=likeness(first, last) if alike is None else alike,
        residual=float(np.vdot(rest, rest)) / length / max(1, len(rest)),
        step=float(steps.max()),
        back=float(-np.minimum(steps, 0).sum()),
    )
    return fit, places


def sag(first: Look, last: Look, energies: np.ndarray, places: np.ndarray, apart: float | None = None) -> float:
    """How far the gradient energy of the frames (k,) sags below the line between its ends: 1 in a blend, 0
    in a pan.

    `apart` is the squared distance of the gradients of the two ends, measured where it is not given.
    """
    if apart is None:
        way = last.gray.astype(np.float32) - first.gray
        apart = cv2.norm(way[:, 1:], way[:, :-1], cv2.NORM_L2SQR) + cv2.norm(way[1:], way[:-1], cv2.NORM_L2SQR)
    a = np.clip(places, 0, 1)
    expected = a * (1 - a) * apart
    missing = (1 - a) * energies[0] + a * energies[-1] - energies
    return float(missing @ expected) / (float(expected @ expected) + 1e-6)


def ramp_fit(seconds: np.ndarray, places: np.ndarray) -> tuple[float, float, float]:
    """(begin, end, error) of the ramp clip((t - begin) / (end - begin), 0, 1) nearest to `places`, RMS
    error.
    """
    ends = np.linspace(seconds[0], seconds[-1], RAMP_STEPS)
    begin, end = np.meshgrid(ends, ends, indexing="ij")
    ok = end > begin
    begin, end = begin[ok], end[ok]
    model = np.clip((seconds - begin[:, None]) / (end - begin)[:, None], 0, 1)  # (pairs, k)
    error = ((model - places) ** 2).mean(axis=1)
    best = int(error.argmin())
    return float(begin[best]), float(end[best]), float(error[best]) ** 0.5
