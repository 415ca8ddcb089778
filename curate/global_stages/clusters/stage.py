"""The stage `clusters`: sorts all clips into concepts by k-means over their embeddings, for balancing and the audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import duckdb
import numpy as np
import pyarrow as pa

from curate.catalog.vectors import read_embeddings
from curate.global_stages.clusters.kmeans import kmeans, nearest, unit
from curate.global_stages.clusters.settings import ClusterSettings
from curate.global_stages.clusters.words import check_model, text_encoder, word_list
from stages.base import Column, GlobalStage

VERSION = 1  # changes whenever the same embeddings would get other concepts
SAMPLE = 64  # the centres are fitted to so many clips for each concept
SORTED = "clipmill_sorted"  # a temporary table of the clips to sort

Encoder = Callable[[Sequence[str]], np.ndarray]  # texts -> (n, dim)


class Clusters(GlobalStage[ClusterSettings]):
    """The concept that a clip belongs to, and how many clips share it. Concepts are numbered by size, the largest is 0.

    Centres are fitted again at every run, to the clips with the smallest ids. Ids are hashes, so this is a random
    sample, and one that depends on the set of clips alone and not on the runs that led to it.
    """

    name: ClassVar[str] = "clusters"
    default_table: ClassVar[str] = "clusters"
    own_signals: ClassVar[Mapping[str, Column]] = {
        "concept": Column(
            "int32",
            "number of the concept, from 0 for the largest",
            also=("cluster", "topic", "category", "cluster_id"),
        ),
        "concept_size": Column("int64", "clips of the concept"),
        "concept_weight": Column(
            "double", "1 / sqrt(`concept_size`), scaled so that its mean over all clips is 1", "times the mean"
        ),
        "concept_name": Column("string", "nearest of `words` to the concept's centre"),
    }

    def __init__(self, settings: ClusterSettings, encode: Encoder | None = None):
        """`encode` encodes the words; None takes the model that made the embeddings."""
        super().__init__(settings)
        self.encode = encode

    def check(self) -> None:
        word_list(self.settings)
        check_model(self.settings)

    def versions(self) -> dict[str, str]:
        return {self.name: str(VERSION)}

    def compute(self, connection: duckdb.DuckDBPyConnection, select: str, previous: pa.Table | None) -> pa.Table:
        connection.sql(f"CREATE OR REPLACE TEMP TABLE {SORTED} AS SELECT DISTINCT clip_id FROM ({select}\n)")
        rows = connection.sql(
            f"SELECT clip_id, source_id FROM clips SEMI JOIN {SORTED} USING (clip_id)"
        ).to_arrow_table()
        ids, matrix = read_embeddings(connection, self.settings.embeddings, f"clip_id IN (FROM {SORTED})")
        connection.sql(f"DROP TABLE {SORTED}")
        concept, names = self._concepts(connection, matrix)
        sizes = np.bincount(concept)
        weights = concept_weights(sizes)
        found = pa.table(
            {
                "clip_id": pa.array(ids, pa.string()),
                "concept": pa.array(concept, pa.int32()),
                "concept_size": pa.array(sizes[concept], pa.int64()),
                "concept_weight": pa.array(weights[concept], pa.float64()),
                "concept_name": pa.array(names, pa.string()).take(pa.array(concept)),
            }
        )
        return rows.join(found, "clip_id").sort_by("clip_id").combine_chunks()

    def _concepts(
        self, connection: duckdb.DuckDBPyConnection, matrix: np.ndarray
    ) -> tuple[np.ndarray, list[str | None]]:
        """The concept (n,) of each embedding (n, d), and the name of each concept."""
        if not len(matrix):
            return np.zeros(0, np.int32), [None]
        centres = kmeans(matrix[: SAMPLE * self.settings.k], self.settings.k, self.settings.seed)
        assigned = nearest(matrix, centres)[:, 0]
        used, first, sizes = np.unique(assigned, return_index=True, return_counts=True)
        order = np.lexsort((first, -sizes))  # of equal sizes the one with the smallest clip id comes first
        number = np.empty(len(centres), np.int32)
        number[used[order]] = np.arange(len(used))
        return number[assigned], self._names(connection, centres[used[order]])

    def _names(self, connection: duckdb.DuckDBPyConnection, centres: np.ndarray) -> list[str | None]:
        words = word_list(self.settings)
        if not words:
            return [None] * len(centres)
        encode = self.encode or text_encoder(connection, self.settings).encode_texts
        vectors = np.concatenate([encode(words[at : at + 256]) for at in range(0, len(words), 256)])
        return [words[best] for best in nearest(centres, unit(vectors))[:, 0]]


def concept_weights(sizes: np.ndarray) -> np.ndarray:
    """1 / sqrt(size) of each concept (k,), scaled so that the mean over all clips is 1."""
    weights = 1 / np.sqrt(np.maximum(sizes, 1))
    return weights * sizes.sum() / max((weights * sizes).sum(), 1e-300)
