"""Settings of the stage `cut`: how scenes are found and how long clips may be."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from stages.settings import Settings

CUT_VERSION = 3  # increase it when the same frames would be cut elsewhere


class CutSettings(Settings):
    """`cut:` how scenes are found and how long clips may be."""

    judged: ClassVar[frozenset[str]] = frozenset({"min_seconds"})

    detector: Literal["adaptive", "content", "histogram", "threshold", "hash", "fixed", "transnetv2", "none"] = (
        "adaptive"
    )
    threshold: float | None = Field(None, gt=0)  # None: the detector's value tuned for 128 px frames
    gradual: bool = True  # cross-fades and dips, by a cascade at lower frame rates
    seconds: float | None = Field(None, ge=0.01)  # clip length of the detector 'fixed'
    weights: str | None = None  # local file of the detector 'transnetv2'; None: the published weights
    device: Literal["auto", "cpu", "cuda"] = Field("auto", exclude=True)  # of the detector 'transnetv2'
    min_seconds: float = Field(2.0, ge=0)  # shorter scenes are dropped by a gate, with their scores
    max_seconds: float = Field(60.0, ge=0.01)  # longer scenes are split

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_seconds <= self.min_seconds:
            raise ValueError(f"max_seconds ({self.max_seconds:g}) must be above min_seconds ({self.min_seconds:g})")
        if self.detector == "fixed" and self.seconds is None:
            raise ValueError("detector 'fixed' needs `seconds`, the length of its clips")
        return self
