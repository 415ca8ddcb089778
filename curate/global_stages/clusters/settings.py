"""The settings of the stage `clusters`: how many concepts, and the words that name them."""

from __future__ import annotations

from pydantic import Field

from stages.settings import TableSettings


class ClusterSettings(TableSettings):
    """Concepts are k-means clusters of the embeddings of a table."""

    # not excluded, as elsewhere: the hash of the settings counts the table's name
    table: str | None = Field(None, alias="as", pattern="^[a-z][a-z0-9_]*$")
    k: int = Field(100, ge=1, le=65_536)  # concepts; fewer where there are fewer different clips
    embeddings: str = "embeddings"  # the table of embeddings
    seed: int = Field(0, ge=0)
    words: tuple[str, ...] | str | None = None  # names for concepts: a list, or a file of one word or phrase a line
    model: str | None = None  # encodes the words; None: the model that made the embeddings, as the runs say
    pretrained: str | None = None
