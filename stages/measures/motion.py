"""Motion: how far things move, in percent of the frame's diagonal per second."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from stages.base import Column
from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed
from stages.measures.flow import Flow

FAST = 12.0  # percent per second; above it half a second is too long to follow, and the trail is believed
LONGEST_PAIR_S = 2.0  # between frames further apart a flow means nothing


class Motion(Measure):
    """Mean magnitude of dense optical flow between samples half a second apart, averaged over the clip.

    Divided by the diagonal and by the real time between the two frames, so it does not depend on resolution
    or frame rate. Half a second tells slow movement from noise, but loses movement of more than a tenth of
    the diagonal and anything periodic; there the newest two frames of the trail (1/12 s apart) are taken
    instead. The 2 fps flow is Data-Juicer's video_motion_score_filter, the unit is ours.
    """

    name = "motion"
    version = 3
    columns: ClassVar[dict[str, Column]] = {
        "motion": Column(
            "double",
            "how fast things move",
            "% of the diagonal per second",
            also=("movement", "speed", "flow", "optical_flow", "motion_score"),
        ),
    }
    unknown = "no pair of samples lies inside the clip, as for images"
    reach = "pair"

    def __init__(self) -> None:
        self._flow, self._fine = Flow(), Flow(fine=True)

    def observe(self, sample: Sample, previous: Sample | None) -> float | None:
        if previous is None:
            return None
        apart = sample.seconds - previous.seconds
        if apart > LONGEST_PAIR_S:
            return None
        fast = self._trail_speed(sample, previous.seconds)
        if fast is not None and fast > FAST:
            return fast
        return _length(self._fine.between(previous.trail[-1][1], sample.trail[-1][1])) / apart

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        return {"motion": float(np.mean([value for _, value in values])) if values else None}

    def _trail_speed(self, sample: Sample, since_s: float) -> float | None:
        if len(sample.trail) < 2 or sample.trail[-2][0] <= since_s:
            return None
        return _length(self._flow.step(sample)) / (sample.trail[-1][0] - sample.trail[-2][0])


def _length(flow: np.ndarray) -> float:
    """Mean length of the vectors (h, w, 2).

    OpenCV's own mean and magnitude of floats round by where in memory they lie; the same video must read the same.
    """
    x, y = flow[..., 0], flow[..., 1]
    return float(np.sqrt(x * x + y * y).mean(dtype=np.float64))
