"""Exposure: how bright, how contrasted and how colourful a clip is."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np

from stages.base import Column
from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed


class Exposure(Measure):
    """Means over samples of: mean luma, standard deviation of luma, and mean HSV saturation (all 0-255).

    Saturation is OpenCV's 255 * (max - min) / max of the three colours, of the small picture: its averages
    keep chroma noise of black from counting as colour.
    """

    name = "exposure"
    version = 3
    columns: ClassVar[dict[str, Column]] = {
        "luma_mean": Column(
            "double",
            "mean luma, full range",
            "0-255",
            also=("brightness", "luma", "exposure", "brightness_mean", "dark"),
        ),
        "contrast": Column("double", "standard deviation of luma", "0-255", also=("luma_std",)),
        "saturation": Column("double", "mean HSV saturation", "0-255", also=("colorfulness", "colour", "color")),
    }

    def observe(self, sample: Sample, previous: Sample | None) -> tuple[float, float, float]:
        mean, deviation = cv2.meanStdDev(sample.gray)
        saturation = cv2.mean(cv2.cvtColor(sample.small, cv2.COLOR_BGR2HSV))[1]
        return float(mean[0, 0]), float(deviation[0, 0]), float(saturation)

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        if not values:
            return dict.fromkeys(self.columns)
        means = np.mean([value for _, value in values], axis=0)
        return dict(zip(self.columns, map(float, means), strict=True))
