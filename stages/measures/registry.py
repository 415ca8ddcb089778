"""All measures, by the names that a recipe's `measure:` list uses."""

from __future__ import annotations

from collections.abc import Iterable

from stages.measures.base import Measure
from stages.measures.bits import BitsPerPixel
from stages.measures.exposure import Exposure
from stages.measures.letterbox import Letterbox
from stages.measures.motion import Motion
from stages.measures.phash import PerceptualHash
from stages.measures.shake import Shake
from stages.measures.sharpness import Sharpness
from stages.measures.static import Static

MEASURES: dict[str, type[Measure]] = {
    measure.name: measure
    for measure in (
        Motion,
        Shake,
        Sharpness,
        Exposure,
        Letterbox,
        Static,
        PerceptualHash,
        BitsPerPixel,
    )
}


def measures(names: Iterable[str]) -> list[Measure]:
    """One of each named measure; ValueError names the one that does not exist and those that do."""
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise ValueError(f"no measure is called {unknown[0]!r}; there are {', '.join(MEASURES)}")
    return [MEASURES[name]() for name in names]
