"""Static: the share of a clip in which nothing happens at all, as in a slideshow."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2

from stages.base import Column
from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed

_BLOCKS = 16  # the picture is compared by 16 x 16 blocks, so that one moving face is enough
SAME = 5.0  # mean absolute difference of a block's luma, 0-255: stills re-encoded at CRF 18-40 stay below


class Static(Measure):
    """The share (0-1) of neighbouring samples, half a second apart, that are alike in every block."""

    name = "static"
    version = 3
    columns: ClassVar[dict[str, Column]] = {
        "static": Column(
            "double",
            "how much of the clip does not move at all",
            "share of pairs, 0-1",
            also=("still", "frozen", "freeze"),
        ),
    }
    unknown = "images; no pair of samples lies inside the clip"
    reach = "pair"

    def observe(self, sample: Sample, previous: Sample | None) -> bool | None:
        if previous is None:
            return None
        before, now = previous.trail[-1][1], sample.trail[-1][1]  # small, so that noise is averaged out
        if before.shape != now.shape:
            return None
        if cv2.norm(before, now, cv2.NORM_INF) < SAME:  # in every pixel
            return True
        if cv2.norm(before, now, cv2.NORM_L1) >= SAME * now.size:  # on average, so in one block at least
            return False
        difference = cv2.absdiff(before, now)
        blocks = cv2.resize(difference, (_BLOCKS, _BLOCKS), interpolation=cv2.INTER_AREA)
        return bool(blocks.max() < SAME)

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        return {"static": sum(value for _, value in values) / len(values) if values else None}
