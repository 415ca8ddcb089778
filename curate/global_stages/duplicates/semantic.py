"""Finds semantic duplicates: clips whose embeddings have a high cosine (SemDeDup, Abbas et al. 2023)."""

from __future__ import annotations

import numpy as np

from curate.global_stages.clusters.kmeans import kmeans, nearest, unit
from curate.global_stages.duplicates.components import components

ALL_PAIRS = 32_768  # `clusters: auto` compares all pairs of up to so many clips
CELL_CLIPS = 4096  # above that, it makes cells of so many clips on average
SAMPLE = 16  # the cells are fitted to so many clips for each cell
PLACES = 2  # each clip is in so many cells, so that pairs across a border are found too
BLOCK = 2048  # rows of a block of cosines
_DOUBT = 1e-5  # single-precision cosines this near to the threshold are computed again in double precision


class CellIndex:
    """Embeddings of some of the clips, divided into cells: pairs are looked for inside the cells.

    The cells follow from the set of clips alone: their number (a power of two) from the number of clips, their centres
    from the clips with the smallest ids, which is a random sample because ids are hashes.
    """

    def __init__(self, clips: np.ndarray, matrix: np.ndarray, count: int, cosine: float, clusters: int | str):
        """`matrix` (m, d) holds the embeddings of `clips` (m,), in rising order, out of `count` clips."""
        self.clips, self.cosine = clips, cosine
        self.place = np.full(count, -1, np.int64)  # (count,): each clip's row of the matrix
        self.place[clips] = np.arange(len(clips))
        self.matrix = matrix
        self.clusters = clusters
        self.cells = cell_count(len(clips), clusters)
        self.sample = clips[: SAMPLE * self.cells] if self.cells > 1 else clips[:0]
        self._cell = np.zeros((len(clips), 1), np.int32)  # (m, places): the cells of each row
        if self.cells > 1 and len(clips):
            self._cell = nearest(matrix, kmeans(matrix[: len(self.sample)], self.cells), PLACES)

    def cells_differ(self, queried: np.ndarray) -> bool:
        """Whether the cells were different before the clips `queried` (count,) bool were added."""
        before = len(self.clips) - int(queried[self.clips].sum())
        return self.cells != cell_count(before, self.clusters) or bool(queried[self.sample].any())

    def links(self, queried: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Links (m,) and (m,) that join what all pairs of alike clips, one of `queried` and one of `among`, would join.

        They are not all pairs: a million clips that look the same get a million links.
        """
        found: list[tuple[np.ndarray, np.ndarray]] = []
        queried, among = queried[self.clips], among[self.clips]
        order = np.argsort(self._cell, axis=None, kind="stable")
        members, cells = order // self._cell.shape[1], self._cell.ravel()[order]  # rows of the matrix, cell by cell
        for inside in np.split(members, np.flatnonzero(np.diff(cells)) + 1):
            found += self._inside(inside[queried[inside]], inside[among[inside]])
        if not found:
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        first, second = (np.concatenate(ends) for ends in zip(*found, strict=True))
        return self.clips[first], self.clips[second]

    def alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) bool for pairs of clips `first` and `second` (m,); false where one has no embedding."""
        one, other = self.place[first], self.place[second]
        alike = (one >= 0) & (other >= 0)
        alike[alike] = self._cosines(one[alike], other[alike]) >= self.cosine
        return alike

    def _inside(self, queried: np.ndarray, among: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Links between rows `queried` and `among` of one cell, block by block."""
        found = []
        same = np.array_equal(queried, among)
        for top in range(0, len(queried), BLOCK):
            some = queried[top : top + BLOCK]
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
        """(m,): cosines of rows `one` and `other` (m,) in double precision, summed in an order that no BLAS decides."""
        found = np.empty(len(one))
        for start in range(0, len(one), 65_536):
            part = slice(start, start + 65_536)
            a, b = self.matrix[one[part]].astype(np.float64), self.matrix[other[part]].astype(np.float64)
            lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
            found[part] = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)
        return found


def cell_count(clips: int, clusters: int | str = "auto") -> int:
    """The number of cells for so many clips under the setting `clusters`."""
    if clusters != "auto":
        return int(clusters)
    return 1 if clips <= ALL_PAIRS else 1 << int(np.ceil(np.log2(clips / CELL_CLIPS)))


def _forest(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A spanning forest: the fewest links that join the same clips as these links (m,) and (m,)."""
    ends, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    roots = components(len(ends), places[: len(first)], places[len(first) :])
    leaves = np.flatnonzero(roots != np.arange(len(ends)))
    return ends[roots[leaves]], ends[leaves]
