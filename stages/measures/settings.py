"""Settings of the stage `measure`: the names of the signals there are."""

from __future__ import annotations

from typing import Literal

MeasureName = Literal["motion", "shake", "sharpness", "exposure", "letterbox", "static", "phash", "bits_per_pixel"]
