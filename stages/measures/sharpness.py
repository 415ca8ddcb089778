"""Sharpness: the variance of the Laplacian at a fixed working size."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np

from stages.base import Column
from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed


class Sharpness(Measure):
    """Median over samples of the variance of the 3x3 Laplacian of the 480-pixel luma (Pech-Pacheco et al.
    2000).

    The variance depends on scale, so the size is fixed: a source smaller than that is upscaled and reads low,
    as it should.
    """

    name = "sharpness"
    version = 3
    columns: ClassVar[dict[str, Column]] = {
        "sharpness": Column("double", "how sharp the picture is", "luma²", also=("blur", "focus", "blurriness")),
    }

    def observe(self, sample: Sample, previous: Sample | None) -> float:
        edges = cv2.Laplacian(sample.gray, cv2.CV_16S)
        return cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - cv2.mean(edges)[0] ** 2

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        return {"sharpness": float(np.median([value for _, value in values])) if values else None}
