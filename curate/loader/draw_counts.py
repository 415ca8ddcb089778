"""How often samples are drawn up to a step of a loader's order, computed without walking through the steps.

A whole epoch draws every sample once, or as often as its weight says. Of the epoch that a step lies in, the inverse of
its shuffle gives the places of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.loader.order import Population, SampleOrder

CHUNK = 1 << 18  # samples whose draws are in memory at a time


@dataclass
class _Bucket:
    """The samples of one bucket that are counted, and how often the first `epochs` epochs draw them."""

    number: int
    population: Population
    at: np.ndarray  # their places in DrawCounts.rows
    rows: np.ndarray  # of the index
    epochs: int
    counts: np.ndarray


class DrawCounts:
    """Counts draws of the samples in `rows` of the index. Rising steps are cheaper than falling ones."""

    def __init__(self, order: SampleOrder, rows: np.ndarray):
        self.order, self.rows = order, rows
        self._buckets = []
        for number, population in enumerate(order.populations):
            at = np.flatnonzero((rows >= population.first) & (rows < population.first + population.samples))
            own = _Bucket(number, population, at, rows[at], 0, np.zeros(len(at), np.int64))
            self._buckets.append(own)

    def before(self, step: int) -> np.ndarray:
        """(rows,) int64: how often each is drawn in the steps 0 to `step` - 1."""
        found = np.zeros(len(self.rows), np.int64)
        for own, batches in zip(self._buckets, self.order.batches_before(step), strict=True):
            if len(own.rows):
                epochs, rest = divmod(batches * own.population.batch_size, own.population.draws)
                self._count_epochs(own, epochs)
                found[own.at] = own.counts + self._of_epoch(own, epochs, rest)
        return found

    def _count_epochs(self, own: _Bucket, epochs: int) -> None:
        if epochs < own.epochs:
            own.epochs, own.counts = 0, np.zeros(len(own.rows), np.int64)
        if own.population.plain:
            own.counts += epochs - own.epochs
        else:
            for epoch in range(own.epochs, epochs):
                own.counts += self._of_epoch(own, epoch, own.population.draws)
        own.epochs = epochs

    def _of_epoch(self, own: _Bucket, epoch: int, places: int) -> np.ndarray:
        """How often the samples are among the first `places` draws of an epoch."""
        if not places:
            return np.zeros(len(own.rows), np.int64)
        found = []
        for start in range(0, len(own.rows), CHUNK):
            rows = own.rows[start : start + CHUNK]
            numbers, draws = self.order.draws_of(own.number, rows, epoch)
            if places < own.population.draws:
                early = self.order.places(own.number, draws, epoch) < places
                numbers = numbers[early]
            found.append(np.bincount(numbers, minlength=len(rows)))
        return np.concatenate(found)
