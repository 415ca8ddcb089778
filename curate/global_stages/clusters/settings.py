"""The settings of the stage `clusters`: how many concepts, and the words that name them."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from stages.settings import Settings


class ClusterSettings(Settings):
    """Concepts are k-means clusters of the embeddings of a table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    # another name for the stage's table and its columns
    table: str | None = Field(None, alias="as", pattern="^[a-z][a-z0-9_]*$")
    k: int = Field(100, ge=1, le=65_536)  # concepts; fewer where there are fewer different clips
    embeddings: str = "embeddings"  # the table of embeddings
    seed: int = Field(0, ge=0)
    words: tuple[str, ...] | str | None = None  # names for concepts: a list, or a file of one word or phrase a line
    model: str | None = None  # encodes the words; None: the model that made the embeddings, as the runs say
    pretrained: str | None = None
