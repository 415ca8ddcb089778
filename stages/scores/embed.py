"""`embed:` one OpenCLIP embedding a clip, from a few of its frames, and how far neighbouring frames agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from stages.base import ClipError, Column
from stages.scores.frame_embeddings import FrameEmbeddingStage
from stages.scores.settings import EmbedSettings
from stages.unit import Clip, Row

EMBED_VERSION = 1  # increase it when the same frames and weights would give another embedding


class Embed(FrameEmbeddingStage[EmbedSettings]):
    """The OpenCLIP embedding of a clip, and how much its frames differ.

    Pooled: the L2-normalised mean of the frames' L2-normalised embeddings, float16. `temporal_consistency` is the least
    cosine of neighbouring frames, NULL for a clip of one frame: a low value is probably a missed cut.
    """

    name: ClassVar[str] = "embed"
    default_table: ClassVar[str] = "embeddings"
    own_signals: ClassVar[Mapping[str, Column]] = {
        "embedding": Column(
            "binary",
            "`dim` float16, little-endian: L2-normalised mean of the frames' L2-normalised embeddings",
            also=("vector", "features", "clip_embedding"),
        ),
        "dim": Column("int32", "numbers in the embedding"),
        "frames": Column("int32", "distinct frames it was made of; a frame that a short clip gives twice counts once"),
        "temporal_consistency": Column(
            "double",
            "least cosine of neighbouring frames; NULL for one frame. A low one is probably a missed cut",
            "-1 to 1",
        ),
        "model": Column("string", "name of the model"),
        "revision": Column("string", "hash of its loaded weights"),
    }

    def versions(self) -> dict[str, str]:
        return {"embed": f"{EMBED_VERSION} {self.spec.content()}".strip()}

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        answers: list[Row | ClipError] = []
        for found in self.vectors_of(clips):
            vector = pooled(found.vectors)
            answers.append(
                {
                    "embedding": vector.astype("<f2").tobytes(),
                    "dim": len(vector),
                    "frames": len(found.vectors),
                    "temporal_consistency": consistency(found.vectors),
                    "model": self.spec.name,
                    "revision": found.revision,
                }
            )
        return answers


def pooled(vectors: np.ndarray) -> np.ndarray:
    """(width,) float32: the normalised mean of normalised embeddings (k, width)."""
    mean = vectors.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def consistency(vectors: np.ndarray) -> float | None:
    """The least cosine of neighbours among normalised embeddings (k, width); None for one."""
    if len(vectors) < 2:
        return None
    return float((vectors[:-1] * vectors[1:]).sum(axis=1).min())
