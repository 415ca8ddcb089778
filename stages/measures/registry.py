"""All measures, by the names that a recipe's `measure:` list uses. Adding one is a line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

from stages.measures.base import Measure

MEASURES = {
    "motion": "stages.measures.motion:Motion",
    "shake": "stages.measures.shake:Shake",
    "sharpness": "stages.measures.sharpness:Sharpness",
    "exposure": "stages.measures.exposure:Exposure",
    "letterbox": "stages.measures.letterbox:Letterbox",
    "static": "stages.measures.static:Static",
    "phash": "stages.measures.phash:PerceptualHash",
    "bits_per_pixel": "stages.measures.bits:BitsPerPixel",
    "audio": "stages.measures.audio:Audio",
}


def measure_classes(names: Iterable[str]) -> list[type[Measure]]:
    """The class of each named measure, once; ValueError names the one that does not exist and those that do."""
    return [_load(_known(name)) for name in dict.fromkeys(names)]


def _known(name: str) -> str:
    if name not in MEASURES:
        raise ValueError(f"no measure is called {name!r}; there are {', '.join(MEASURES)}")
    return name


def _load(name: str) -> type[Measure]:
    module, _, class_name = MEASURES[name].partition(":")
    return getattr(importlib.import_module(module), class_name)


MeasureName = Annotated[str, AfterValidator(_known)]  # one item of a recipe's `measure:` list
