"""The settings of the decode-pass stages: light models, so that a recipe is checked without heavy imports."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _rising(positions: tuple[float, ...]) -> tuple[float, ...]:
    if any(not 0 <= one <= 1 for one in positions) or list(positions) != sorted(set(positions)):
        raise ValueError(f"positions are shares of the clip's length, 0 to 1, rising; got {list(positions)}")
    return positions


# Where in a clip its frames are taken.
Positions = Annotated[tuple[float, ...], Field(min_length=1, max_length=256), AfterValidator(_rising)]


class ModelSettings(Settings):
    """What every stage with a model of its own can be told. Fields marked `exclude` decide no result."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    # another name for its table and columns
    table: str | None = Field(None, alias="as", pattern="^[a-z][a-z0-9_]*$", exclude=True)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", exclude=True)
    batch_clips: int = Field(32, ge=1, le=100_000, exclude=True)  # clips that go through the network together


class FetchSettings(Settings):
    """How the decoder that fetches frames is guarded; as in `probe`, but of one unit's clips."""

    threads: int = Field(1, ge=1, le=64)
    stall_seconds: float = Field(60.0, gt=0)  # no frame for so long: the decoder is killed
    limit_seconds: float = Field(3600.0, gt=0)  # wall-clock limit of one unit
    memory_gb: float | None = Field(None, ge=1, le=1e6)


class ProbeSettings(Settings):
    """`probe:` what is asked of the header before anything is decoded, and how decoding is guarded."""

    min_seconds: float = Field(0.0, ge=0)  # shorter sources become one dropped clip, undecoded
    backend: Literal["pyav", "decord"] = "pyav"
    threads: int = Field(1, ge=1, le=64)  # decoder threads of one worker
    stall_seconds: float = Field(60.0, gt=0)  # no frame for so long: the decoder is killed
    limit_seconds: float = Field(4 * 3600.0, gt=0)  # wall-clock limit of one source
    memory_gb: float | None = Field(None, ge=1, le=1e6)  # address-space limit of a decoder
    truncated: Literal["fail", "keep"] = "fail"  # sources that end early: failed, or done with what is left


CUT_VERSION = 2  # changes whenever the same frames would be cut elsewhere


class CutSettings(Settings):
    """`cut:` how scenes are found and how long clips may be."""

    detector: Literal["adaptive", "content", "histogram", "threshold", "hash", "fixed", "transnetv2", "none"] = (
        "adaptive"
    )
    threshold: float | None = Field(None, gt=0)  # None: the detector's value tuned for 128 px frames
    gradual: bool = True  # cross-fades and dips, by a cascade at lower frame rates
    seconds: float | None = Field(None, ge=0.01)  # clip length of the detector 'fixed'
    weights: str | None = None  # local weights of the detector 'transnetv2'
    min_seconds: float = Field(2.0, ge=0)  # shorter scenes are dropped, with their scores
    max_seconds: float = Field(60.0, ge=0.01)  # longer scenes are split

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_seconds <= self.min_seconds:
            raise ValueError(f"max_seconds ({self.max_seconds:g}) must be above min_seconds ({self.min_seconds:g})")
        if self.detector == "fixed" and self.seconds is None:
            raise ValueError("detector 'fixed' needs `seconds`, the length of its clips")
        if self.detector == "transnetv2" and self.weights is None:
            raise ValueError("detector 'transnetv2' needs `weights`, a local file")
        return self


MeasureName = Literal["motion", "shake", "sharpness", "exposure", "letterbox", "static", "phash", "bits_per_pixel"]
