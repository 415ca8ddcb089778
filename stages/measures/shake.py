"""Shake: how much the camera jitters, in percent of the frame's diagonal."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from stages.base import Column
from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed
from stages.measures.flow import Flow

STEP_S = 1 / 12  # the step of a trail; jitter is what the camera's movement changes from one step to the next
LONGEST_STEP_S = 0.15  # frames further apart cannot tell jitter from movement


class Shake(Measure):
    """Change of the global motion between two successive steps of 1/12 s, as a median over the clip's
    samples.

    The global motion of a step is the middle of its dense flow, which a person walking through the picture
    does not move (phase correlation of the same frames reads 5 times more on a fixed camera with people
    before it). A steady pan moves alike in both steps and reads near 0.
    """

    name = "shake"
    version = 3
    columns: ClassVar[dict[str, Column]] = {
        "shake": Column(
            "double", "how unsteady the camera is", "% of the diagonal", also=("stability", "jitter", "camera_motion")
        ),
    }
    unknown = "images; frame rates under 7 fps"
    reach = "trail"

    def __init__(self) -> None:
        self._flow = Flow()

    def observe(self, sample: Sample, previous: Sample | None) -> float | None:
        if len(sample.trail) < 3:
            return None
        (t0, first), (t1, second), (t2, _) = sample.trail[-3:]
        if not (0 < t1 - t0 <= LONGEST_STEP_S and 0 < t2 - t1 <= LONGEST_STEP_S):
            return None
        latest = camera(self._flow.step(sample)) / (t2 - t1)
        change = latest - camera(self._flow.between(first, second)) / (t1 - t0)
        return float(np.hypot(*change)) * STEP_S

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        return {"shake": float(np.median([value for _, value in values])) if values else None}


def camera(flow: np.ndarray) -> np.ndarray:
    """The camera's movement (x, y) in a flow (h, w, 2): the middle of its vectors."""
    across, down = (np.ascontiguousarray(flow[..., axis]).reshape(-1) for axis in (0, 1))
    x, y = _median(across), _median(down)
    for _ in range(2):  # towards the densest half: what moves before the camera pulls a plain median
        away_x, away_y = across - x, down - y
        away = away_x * away_x + away_y * away_y
        near = away <= _median(away)
        x, y = _median(across[near]), _median(down[near])
    return np.array((x, y))


def _median(values: np.ndarray) -> np.float32:
    """The upper median of (n,), several times faster than numpy's."""
    half = len(values) // 2
    return np.partition(values, half)[half]
