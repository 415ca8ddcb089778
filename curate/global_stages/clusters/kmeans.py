"""Spherical k-means in numpy. The same vectors in the same order give the same centres, whatever the threads."""

from __future__ import annotations

import numpy as np

ROUNDS = 20  # of Lloyd's algorithm, at most
ROWS = 16_384  # vectors compared with the centres at a time
_DIGITS = 9  # similarities are rounded to so many digits: further ones depend on the BLAS library


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) scaled to length one, float64; zeros stay zeros."""
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def kmeans(vectors: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """At most `k` centres (k, d) float64 of length one, of vectors (n, d). The order of the vectors matters.

    Starts with k-means++ (Arthur and Vassilvitskii 2007) by cosine distance; gives fewer centres where fewer vectors
    differ. Costs n * k * d operations a round: give it a sample of a large set.
    """
    vectors = unit(vectors)
    centres = _start(vectors, k, np.random.default_rng(seed))
    assigned = None  # (n,): the centre of each vector
    for _ in range(ROUNDS):
        before, assigned = assigned, nearest(vectors, centres)[:, 0]
        if before is not None and np.array_equal(before, assigned):
            break
        sums = np.zeros_like(centres)
        np.add.at(sums, assigned, vectors)
        used = np.linalg.norm(sums, axis=1) > 0  # a centre that lost all its vectors stays where it was
        centres[used] = np.round(unit(sums[used]), _DIGITS)
    return centres


def nearest(vectors: np.ndarray, centres: np.ndarray, count: int = 1) -> np.ndarray:
    """(n, count) int32: the centres nearest to each vector, nearest first; of equally near ones the first."""
    count = min(count, len(centres))
    found = np.empty((len(vectors), count), np.int32)
    for start in range(0, len(vectors), ROWS):
        cosines = np.round(unit(vectors[start : start + ROWS]) @ centres.T, _DIGITS)  # (rows, k)
        for place in range(count):
            best = cosines.argmax(axis=1)
            found[start : start + ROWS, place] = best
            cosines[np.arange(len(cosines)), best] = -np.inf
    return found


def _start(vectors: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each further centre is a vector drawn in proportion to its distance from those chosen."""
    chosen = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < min(k, len(vectors)):
        distance = np.minimum(distance, np.round(1 - vectors @ vectors[chosen[-1]], _DIGITS).clip(0))
        total = np.cumsum(distance)
        if total[-1] <= 0:
            break
        chosen.append(int(np.searchsorted(total, rng.random() * total[-1], side="right").clip(0, len(vectors) - 1)))
    return vectors[chosen].copy()
