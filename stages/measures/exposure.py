"""Exposure: how bright, how contrasted and how colourful a clip is."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np

from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed

_SATURATION_SIDE = 120  # pixels; area averages, so that chroma noise of black does not count as colour


class Exposure(Measure):
    """Means over samples of: mean luma, standard deviation of luma, and mean HSV saturation (all 0-255).

    Saturation is OpenCV's 255 * (max - min) / max of the three colours.
    """

    name = "exposure"
    version = 1
    columns: ClassVar[dict[str, str]] = {"luma_mean": "double", "contrast": "double", "saturation": "double"}

    def observe(self, sample: Sample, previous: Sample | None) -> tuple[float, float, float]:
        mean, deviation = cv2.meanStdDev(sample.gray)
        height, width = sample.gray.shape
        scale = _SATURATION_SIDE / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(sample.picture, size, interpolation=cv2.INTER_AREA)
        saturation = cv2.mean(cv2.cvtColor(small, cv2.COLOR_BGR2HSV))[1]
        return float(mean[0, 0]), float(deviation[0, 0]), float(saturation)

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        if not values:
            return dict.fromkeys(self.columns)
        means = np.mean([value for _, value in values], axis=0)
        return dict(zip(self.columns, map(float, means), strict=True))
