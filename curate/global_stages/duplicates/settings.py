"""The settings of the stage `duplicates`: what counts as a duplicate, and which clip of several is kept."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from stages.settings import Settings, TableSettings


class NearSettings(Settings):
    """Clips that share frames, by perceptual hashes: copies re-encoded, resized, brighter, cut shorter."""

    bits: int = Field(10, ge=0, le=20)  # of 64; the hashes of the same frame may differ in so many
    share: float = Field(0.5, ge=0, lt=1)  # more than this share of one clip's frames must be in the other
    same_source: bool = False  # whether clips of one file may be duplicates (takes of a fixed camera look alike)


class SemanticSettings(Settings):
    """Clips that show the same thing, by their embeddings (SemDeDup, Abbas et al. 2023)."""

    cosine: float = Field(0.95, gt=0, lt=1)  # clips are duplicates if their embeddings' cosine is at least this
    table: str = "embeddings"  # the table of embeddings
    clusters: Literal["auto"] | int = Field("auto")  # pairs are looked for inside these; 1 looks at all pairs

    @model_validator(mode="after")
    def _count(self) -> Self:
        if self.clusters != "auto" and not 1 <= self.clusters <= 65_536:
            raise ValueError(f"clusters ({self.clusters}) is auto, or from 1 to 65536")
        return self


class DuplicateSettings(TableSettings):
    """The kinds of duplicates to look for; `near: true` and `semantic: true` take their defaults."""

    # not excluded, as elsewhere: the hash of the settings counts the table's name
    table: str | None = Field(None, alias="as", pattern="^[a-z][a-z0-9_]*$")
    exact: bool = True  # the same span of files with the same bytes
    near: NearSettings | None = NearSettings()
    semantic: SemanticSettings | None = None
    score: str | None = Field(None, min_length=1)  # SQL over `clips`: of clips of one size the highest is kept

    @model_validator(mode="before")
    @classmethod
    def _switches(cls, given: Any) -> Any:
        """`near: true` means its defaults, `near: false` switches it off."""
        if not isinstance(given, dict):
            return given
        switches = [name for name in ("near", "semantic") if isinstance(given.get(name), bool)]
        return {**given, **{name: {} if given[name] else None for name in switches}}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.exact or self.near or self.semantic):
            raise ValueError("nothing to look for: switch on `exact`, `near` or `semantic`")
        return self
