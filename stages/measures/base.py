"""Base class of measures: each observes samples one by one and turns those of a clip into columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from stages.base import Column
from stages.frames import ClipAudio, Sample

Timed = tuple[float, Any]  # (seconds, observed value)


@dataclass(frozen=True)
class ClipFacts:
    """What the decode pass knows of a clip when it closes it. Sizes are as displayed, in pixels."""

    width: int
    height: int
    fps: float | None
    frames: int
    start_s: float
    end_s: float
    packet_bytes: int | None  # compressed bytes of the clip's frames; None where the container says nothing
    media: str  # 'video' or 'image'
    audio: ClipAudio | None = None  # None without sound, and where no measure asks for it


class Measure:
    """One way of looking at a clip. It holds no state of a clip: what it observes is kept by `Observations`.

    The first paragraph of a measure's docstring says how it is computed; `make docs` puts it into docs/signals.md.

    `reach` says what one observation looks at, and so when it lies inside a clip: this sample alone, the
    pair of it and the one before, or its trail.
    """

    name: ClassVar[str]  # as in a recipe's `measure:` list
    version: ClassVar[int]  # increase it when the same pixels would give another value
    columns: ClassVar[dict[str, Column]]  # of any type but binary
    unknown: ClassVar[str] = "no sample lies inside the clip"  # when its columns are NULL
    reach: ClassVar[Literal["sample", "pair", "trail"]] = "sample"
    most_kept: ClassVar[int | None] = None  # observations kept one by one; above it neighbours are merged
    hears: ClassVar[bool] = False  # looks at the clip's sound and at no sample

    def observe(self, sample: Sample, previous: Sample | None) -> Any:
        """A small value, or None where nothing can be said. `previous` is the sample before this one."""
        raise NotImplementedError

    def merge(self, earlier: Any, later: Any) -> Any:
        """One value for two neighbouring observations; needed where `most_kept` is set."""
        raise NotImplementedError

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        """Every column of the clip; None where it is unknown."""
        raise NotImplementedError
