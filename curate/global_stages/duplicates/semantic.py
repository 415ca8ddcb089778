"""Semantic duplicates: clips whose embeddings point the same way (SemDeDup, Abbas et al. 2023)."""

from __future__ import annotations

import numpy as np

from curate.global_stages.clusters.kmeans import kmeans, nearest, unit
from curate.global_stages.duplicates.components import components

ALL_PAIRS = 32_768  # clips up to which `clusters: auto` looks at all pairs
CELL_CLIPS = 4096  # clips in a cell, on the average, above it
SAMPLE = 16  # clips for each cell that the cells are fitted to
PLACES = 2  # cells that each clip is in: pairs across a border are found by the other one
BLOCK = 2048  # rows of a block of cosines
_DOUBT = 1e-5  # cosines in single precision so near to the threshold are computed again


class Embeddings:
    """Embeddings of some of the clips, and the cells in which pairs are looked for.

    The cells follow from the set of clips alone: their number from how many there are, in powers of two, and
    their centres from a sample, the clips with the smallest ids (ids are hashes, so it is a random one).
    """

    def __init__(self, rows: np.ndarray, matrix: np.ndarray, count: int, cosine: float, clusters: int | str):
        """`matrix` (m, d) are the embeddings of clips `rows` (m,), rising, out of `count`."""
        self.rows, self.cosine = rows, cosine
        self.place = np.full(count, -1, np.int64)
        self.place[rows] = np.arange(len(rows))
        self.matrix = matrix
        self.clusters = clusters
        self.cells = cell_count(len(rows), clusters)
        self.sample = rows[: SAMPLE * self.cells] if self.cells > 1 else rows[:0]
        self._cell = np.zeros((len(rows), 1), np.int32)
        if self.cells > 1 and len(rows):
            self._cell = nearest(matrix, kmeans(matrix[: len(self.sample)], self.cells), PLACES)

    def cells_differ(self, asked: np.ndarray) -> bool:
        """Whether the cells were others before the clips `asked` (count,) bool came."""
        before = len(self.rows) - int(asked[self.rows].sum())
        return self.cells != cell_count(before, self.clusters) or bool(asked[self.sample].any())

    def links(self, asked: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Links that join what all pairs of alike clips, one of `asked` and one of `among`, would join.

        Not every pair: a million clips that look the same are a million links.
        """
        found: list[tuple[np.ndarray, np.ndarray]] = []
        asked, among = asked[self.rows], among[self.rows]
        order = np.argsort(self._cell, axis=None, kind="stable")  # places in the cells, cell by cell
        members, cells = order // self._cell.shape[1], self._cell.ravel()[order]
        for inside in np.split(members, np.flatnonzero(np.diff(cells)) + 1):
            found += self._inside(inside[asked[inside]], inside[among[inside]])
        if not found:
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        first, second = (np.concatenate(ends) for ends in zip(*found, strict=True))
        return self.rows[first], self.rows[second]

    def alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) bool of clips `first` and `second` (m,); false where one has no embedding."""
        one, other = self.place[first], self.place[second]
        there = (one >= 0) & (other >= 0)
        there[there] = self._cosines(one[there], other[there]) >= self.cosine
        return there

    def _inside(self, asked: np.ndarray, among: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        same = np.array_equal(asked, among)
        for top in range(0, len(asked), BLOCK):
            some = asked[top : top + BLOCK]
            vectors = unit(self.matrix[some]).astype(np.float32)
            for left in range(top if same else 0, len(among), BLOCK):
                others = among[left : left + BLOCK]
                cosines = vectors @ unit(self.matrix[others]).astype(np.float32).T
                first, second = np.nonzero(cosines >= self.cosine - _DOUBT)
                apart = some[first] < others[second] if same else some[first] != others[second]
                first, second = first[apart], second[apart]
                sure = cosines[first, second] > self.cosine + _DOUBT
                sure[~sure] = self._cosines(some[first[~sure]], others[second[~sure]]) >= self.cosine
                if sure.any():
                    found.append(_forest(some[first[sure]], others[second[sure]]))
        return found

    def _cosines(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Row by row in double precision, in the one order of summing that no BLAS decides."""
        found = np.empty(len(one))
        for start in range(0, len(one), 65_536):
            part = slice(start, start + 65_536)
            a, b = self.matrix[one[part]].astype(np.float64), self.matrix[other[part]].astype(np.float64)
            lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
            found[part] = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)
        return found


def cell_count(clips: int, clusters: int | str = "auto") -> int:
    """How many cells the setting `clusters` makes of so many clips."""
    if clusters != "auto":
        return int(clusters)
    return 1 if clips <= ALL_PAIRS else 1 << int(np.ceil(np.log2(clips / CELL_CLIPS)))


def _forest(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fewest links that join what these links join."""
    ends, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    roots = components(len(ends), places[: len(first)], places[len(first) :])
    leaves = np.flatnonzero(roots != np.arange(len(ends)))
    return ends[roots[leaves]], ends[leaves]
