"""Spherical k-means in numpy: the same vectors give the same centres, whatever the threads and the order."""

from __future__ import annotations

import numpy as np

ROUNDS = 20  # of Lloyd's algorithm, at most
ROWS = 16_384  # vectors compared with the centres in one go
_DIGITS = 9  # to which similarities are rounded: what is beyond depends on the BLAS at hand


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, d) float64 of length one; zeros stay zeros."""
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def kmeans(vectors: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """At most `k` centres (k, d) float64 of length one, of vectors (n, d) in an order that is their own.

    Starts by k-means++ (Arthur and Vassilvitskii 2007) with cosine distance; fewer centres where fewer
    vectors differ. Cost n * k * d a round: give a sample of a large set.
    """
    vectors = unit(vectors)
    centres = _start(vectors, k, np.random.default_rng(seed))
    mine = None
    for _ in range(ROUNDS):
        before, mine = mine, nearest(vectors, centres)[:, 0]
        if before is not None and np.array_equal(before, mine):
            break
        sums = np.zeros_like(centres)
        np.add.at(sums, mine, vectors)
        there = np.linalg.norm(sums, axis=1) > 0  # a centre that lost all its vectors stays where it was
        centres[there] = np.round(unit(sums[there]), _DIGITS)
    return centres


def nearest(vectors: np.ndarray, centres: np.ndarray, count: int = 1) -> np.ndarray:
    """(n, count) int32: the centres nearest to each vector, nearest first; of equal ones the first."""
    count = min(count, len(centres))
    found = np.empty((len(vectors), count), np.int32)
    for start in range(0, len(vectors), ROWS):
        alike = np.round(unit(vectors[start : start + ROWS]) @ centres.T, _DIGITS)
        for place in range(count):
            best = alike.argmax(axis=1)
            found[start : start + ROWS, place] = best
            alike[np.arange(len(alike)), best] = -np.inf
    return found


def _start(vectors: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    chosen = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < min(k, len(vectors)):
        distance = np.minimum(distance, np.round(1 - vectors @ vectors[chosen[-1]], _DIGITS).clip(0))
        total = np.cumsum(distance)
        if total[-1] <= 0:
            break
        chosen.append(int(np.searchsorted(total, rng.random() * total[-1], side="right").clip(0, len(vectors) - 1)))
    return vectors[chosen].copy()
