"""`duplicates:` what counts as a duplicate, and which clip of several is kept."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from stages.settings import Settings


class NearSettings(Settings):
    """Clips that share frames, by perceptual hashes: copies re-encoded, resized, brighter, cut shorter."""

    bits: int = Field(10, ge=0, le=20)  # of 64, by which the hashes of one frame may differ
    share: float = Field(0.5, ge=0, lt=1)  # of the frames of one clip, more of which must be found in the other
    same_source: bool = False  # whether clips of one file may be duplicates (two takes of a fixed camera look it)


class SemanticSettings(Settings):
    """Clips that show the same thing, by their embeddings (SemDeDup, Abbas et al. 2023)."""

    cosine: float = Field(0.95, gt=0, lt=1)  # of two embeddings, from which they are duplicates
    table: str = "embeddings"  # where the embeddings are
    clusters: Literal["auto"] | int = Field("auto")  # pairs are looked for inside these; 1 looks at all pairs

    @model_validator(mode="after")
    def _count(self) -> Self:
        if self.clusters != "auto" and not 1 <= self.clusters <= 65_536:
            raise ValueError(f"clusters ({self.clusters}) is auto, or from 1 to 65536")
        return self


class DuplicateSettings(Settings):
    """The kinds of duplicates that are looked for; `near` and `semantic` take true for their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    table: str | None = Field(None, alias="as", pattern="^[a-z][a-z0-9_]*$")  # another name for the stage's table
    exact: bool = True  # the same span of files that are the same to the byte
    near: NearSettings | None = NearSettings()
    semantic: SemanticSettings | None = None
    score: str | None = Field(None, min_length=1)  # SQL over `clips`: of clips of one size the highest is kept

    @model_validator(mode="before")
    @classmethod
    def _switches(cls, given: Any) -> Any:
        """`near: true` is its defaults, `near: false` is none of it."""
        if not isinstance(given, dict):
            return given
        switched = {k: {} if given[k] else None for k in ("near", "semantic") if isinstance(given.get(k), bool)}
        return {**given, **switched}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.exact or self.near or self.semantic):
            raise ValueError("nothing to look for: switch on `exact`, `near` or `semantic`")
        return self
