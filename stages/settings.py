"""What the settings of every stage share: pydantic models that refuse unknown keys, and fields that many have."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of every settings model. Refuses unknown keys, NaN and infinity; immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # Settings that only make the gates which a stage brings along: a change judges clips anew and makes no row again.
    judged: ClassVar[frozenset[str]] = frozenset()


def _rising(positions: tuple[float, ...]) -> tuple[float, ...]:
    if any(not 0 <= one <= 1 for one in positions) or list(positions) != sorted(set(positions)):
        raise ValueError(f"positions are shares of the clip's length, 0 to 1, rising; got {list(positions)}")
    return positions


# Number format that a network runs in; 'auto' depends on the device.
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
# Where in a clip its frames are taken.
Positions = Annotated[tuple[float, ...], Field(min_length=1, max_length=256), AfterValidator(_rising)]


class TableSettings(Settings):
    """Base of the settings of stages that fill a table. Fields marked `exclude` do not change a result."""

    model_config = ConfigDict(populate_by_name=True)

    # another name for its table and columns
    table: str | None = Field(None, alias="as", pattern="^[a-z][a-z0-9_]*$", exclude=True)


class ModelSettings(TableSettings):
    """What every stage on clips can be told."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", exclude=True)
    batch_clips: int = Field(32, ge=1, le=100_000, exclude=True)  # clips that go through the network together
