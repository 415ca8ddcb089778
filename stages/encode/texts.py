"""The texts of an encoding: which captions of a clip are embedded, as which fields of its sample, and their arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.base import UnfitError
from stages.encode.settings import CaptionEmbeddingSettings
from stages.encode.shard import text_arrays
from stages.pretrained.lookup import named_path
from stages.shards.made_of import captions_hash
from stages.text_encoders.describe import describe_text
from stages.text_encoders.encoder import TextEncoder
from stages.text_encoders.load import load_text_encoder


class Texts:
    """What the setting `text` asks for; without it there are no fields, no captions and no arrays.

    `about` is what a contract says of the encoder, `fields` maps the fields of a sample to the columns of clips with
    their captions.
    """

    def __init__(self, settings: CaptionEmbeddingSettings | None):
        self.settings = _located(settings)
        self.about = describe_text(self.settings) if self.settings else None
        columns = settings.captions if settings else ()
        self.fields = {"text" if index == 0 else f"text_{column}": column for index, column in enumerate(columns)}
        self.encoder: TextEncoder | None = None

    def load(self, device: str) -> None:
        if self.settings is not None:
            self.encoder = load_text_encoder(self.settings, device)

    def close(self) -> None:
        self.encoder = None

    def captions(self, row: Mapping[str, Any]) -> dict[str, str]:
        """A clip's captions by column. Raises UnfitError for a missing one where the settings require it."""
        found: dict[str, str] = {}
        for column in self.fields.values():
            text = (row.get(column) or "").strip()
            if not text and self.settings is not None and self.settings.missing == "fail":
                raise UnfitError(
                    f"no caption in column {column!r}; a run after it has one takes it, or select only clips "
                    f"WHERE {column} IS NOT NULL"
                )
            found[column] = text
        return found

    def hash(self, row: Mapping[str, Any]) -> str | None:
        """Of a clip's captions as its columns hold them; None without text."""
        return captions_hash(row.get(self.fields[name]) for name in sorted(self.fields)) if self.fields else None

    def arrays(self, captions: Sequence[Mapping[str, str]]) -> list[dict[str, np.ndarray]]:
        """The text fields of each clip's sample, from its captions by column."""
        found: list[dict[str, np.ndarray]] = [{} for _ in captions]
        if self.encoder is None or not captions:
            return found
        for name, column in self.fields.items():
            embeddings = self.encoder.encode([each[column] for each in captions])
            for fields, embedding in zip(found, embeddings, strict=True):
                fields |= text_arrays(name, embedding)
        return found

    def empty(self) -> dict[str, np.ndarray]:
        """The encoded empty prompt, once for a shard."""
        return {} if self.encoder is None else {"text": self.encoder.empty()}

    def truncated(self, captions: Mapping[str, str]) -> list[str]:
        """Columns whose caption is longer than the text encoder takes."""
        encoder = self.encoder
        return [] if encoder is None else [column for column, text in captions.items() if encoder.truncated(text)]


def _located(text: CaptionEmbeddingSettings | None) -> CaptionEmbeddingSettings | None:
    """The settings with absolute paths, because workers run in other working folders."""
    if text is None:
        return None
    paths = {"model": text.model, "pretrained": text.pretrained}
    return text.model_copy(
        update={name: os.path.abspath(named_path(p)) for name, p in paths.items() if p and named_path(p).exists()}
    )
