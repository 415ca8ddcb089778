"""Which samples a step trains on: a pure function of (seed, step), the same on every rank.

Each bucket has an endless stream of draws, one epoch after another, and its batches are cut from the stream one after
another: what does not fill a batch at the end of an epoch begins the first batch of the next. So no sample is left out
and none comes twice in an epoch, whatever the batch size. The batches of the buckets are interleaved evenly, so that
at any time each bucket has had its share.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from curate.loader.permutation import Shuffle, key, mixed, uniform

SCHEDULE, SHUFFLE, OFFSET, REPLACEMENT = range(4)  # the purpose of a key
STRETCH = 4096  # places of a stream whose rows are computed at a time, at most: one batch alone would cost as much
BLOCK, WINDOW = 256, 64  # samples of a block, blocks of a window: 16,384 samples are mixed at a time


@dataclass(frozen=True)
class Population:
    """A bucket to draw from: `samples` rows of the index from row `first` on.

    `draws` is how many make one epoch; `cumulative` are the summed weights (samples,), None for equal weights.
    """

    name: str
    first: int
    samples: int
    draws: int
    batch_size: int
    cumulative: np.ndarray | None = None

    @property
    def plain(self) -> bool:
        """Whether every epoch draws each sample once."""
        return self.cumulative is None and self.draws == self.samples

    @property
    def stretch(self) -> int:
        """Places of the stream whose rows are computed at a time."""
        return min(STRETCH, max(self.draws, self.batch_size))


@dataclass(frozen=True)
class BatchPlan:
    """One global batch: its rows of the index (G,), and their places in the bucket's endless stream (G,)."""

    step: int
    epoch: int
    bucket: int
    bucket_name: str
    rows: np.ndarray
    places: np.ndarray


class SampleOrder:
    """The batch of every step 0, 1, 2, ... without end; what is kept between calls only saves time."""

    def __init__(self, populations: list[Population], seed: int, block: int = BLOCK, window: int = WINDOW):
        self.populations, self.seed, self.block, self.window = populations, seed, block, window
        self._schedule: tuple[int, np.ndarray, np.ndarray] | None = None
        self._stretches: dict[tuple[int, int], np.ndarray] = {}

    def epoch_start(self, epoch: int) -> int:
        """The first step of an epoch: all whole batches of the epochs before it are done."""
        return sum(self._batches(p, epoch) for p in self.populations)

    def epoch_of(self, step: int) -> int:
        """The epoch that a step belongs to. Epochs too short for a batch are skipped."""
        low, high = 0, 1
        while self.epoch_start(high) <= step:
            low, high = high, high * 2
        return low + bisect_right(range(low, high), step, key=self.epoch_start) - 1

    def plan(self, step: int) -> BatchPlan:
        """The global batch of a step."""
        epoch = self.epoch_of(step)
        buckets, numbers = self._scheduled(epoch)
        at = step - self.epoch_start(epoch)
        bucket = int(buckets[at])
        population = self.populations[bucket]
        first = int(numbers[at]) * population.batch_size
        end = first + population.batch_size
        stretches = range(first // population.stretch, (end - 1) // population.stretch + 1)
        rows = np.concatenate([self._stretch(bucket, number) for number in stretches])
        rows = rows[first - stretches[0] * population.stretch :][: population.batch_size]
        places = np.arange(first, end)
        return BatchPlan(step, epoch, bucket, population.name, rows, places)

    def batches_before(self, step: int) -> list[int]:
        """How many batches of each bucket the steps before this one take."""
        epoch = self.epoch_of(step)
        buckets, _ = self._scheduled(epoch)
        inside = np.bincount(buckets[: step - self.epoch_start(epoch)], minlength=len(self.populations)).tolist()
        return [self._batches(p, epoch) + more for p, more in zip(self.populations, inside, strict=True)]

    def places(self, bucket: int, draws: np.ndarray, epoch: int) -> np.ndarray:
        """The positions, among the draws of an epoch, at which these draws come: the inverse of its shuffle."""
        return self._shuffle(bucket, epoch).inverse(draws)

    def replacement(self, bucket: int, place: int, attempt: int) -> int:
        """The row that replaces a bad one. It follows from the place alone, so it is the same on every rank."""
        population = self.populations[bucket]
        by = key(self.seed, REPLACEMENT, bucket, attempt)
        draw = mixed(np.array([place]), by) % np.uint64(population.draws)
        return int(self.rows_of(bucket, draw.astype(np.int64), place // population.draws)[0])

    def rows_of(self, bucket: int, draws: np.ndarray, epoch: int) -> np.ndarray:
        """The rows that draws of an epoch give. Systematic sampling: a weight w of the sum W gets draws x w / W of an
        epoch, rounded up or down.
        """
        population = self.populations[bucket]
        if population.plain:
            return population.first + draws
        share = (draws + self._offset(bucket, epoch)) / population.draws
        if population.cumulative is None:
            found = (share * population.samples).astype(np.int64)
        else:
            total = population.cumulative[-1]
            # The clamp is only for rounding errors; it must not reach samples of weight 0 at the end.
            found = np.searchsorted(population.cumulative, np.minimum(share * total, np.nextafter(total, 0)), "right")
        return population.first + np.minimum(found, population.samples - 1)

    def draws_of(self, bucket: int, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The draws of an epoch that give these rows of the bucket: (which of `rows`, its draw), one pair for each.

        The inverse of `rows_of`: the draws around a row's part of the summed weights are tried.
        """
        population = self.populations[bucket]
        own = rows - population.first
        if population.plain:
            return np.arange(len(rows)), own
        if population.cumulative is None:
            ends = np.stack([own, own + 1]) / population.samples
        else:
            before = np.where(own > 0, population.cumulative[own - 1], 0.0)
            ends = np.stack([before, population.cumulative[own]]) / population.cumulative[-1]
        low, high = ends * population.draws - self._offset(bucket, epoch)
        low = np.clip(np.floor(low).astype(np.int64) - 1, 0, population.draws)
        high = np.clip(np.ceil(high).astype(np.int64) + 2, 0, population.draws)
        counts = high - low
        numbers = np.repeat(np.arange(len(rows)), counts)
        draws = np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts) + low[numbers]
        right = self.rows_of(bucket, draws, epoch) == rows[numbers]
        return numbers[right], draws[right]

    def _offset(self, bucket: int, epoch: int) -> float:
        """Where in the first draw's share of the weights an epoch begins, from 0 to 1."""
        return float(uniform(np.array([epoch]), key(self.seed, OFFSET, bucket))[0])

    def _batches(self, population: Population, epochs: int) -> int:
        return epochs * population.draws // population.batch_size

    def _scheduled(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The bucket of each step of an epoch, and the number of its batch in that bucket's stream."""
        if self._schedule is None or self._schedule[0] != epoch:
            buckets, numbers, moments = [], [], []
            for index, population in enumerate(self.populations):
                begin, end = (self._batches(population, e) for e in (epoch, epoch + 1))
                count = np.arange(end - begin)
                buckets.append(np.full(len(count), index))
                numbers.append(count + begin)
                jitter = uniform(count, key(self.seed, SCHEDULE, epoch, index))
                moments.append((count + jitter) / max(1, len(count)))
            order = np.argsort(np.concatenate(moments), kind="stable")
            self._schedule = epoch, np.concatenate(buckets)[order], np.concatenate(numbers)[order]
        return self._schedule[1:]

    def _stretch(self, bucket: int, number: int) -> np.ndarray:
        """The rows of a stretch of a bucket's stream."""
        found = self._stretches.get((bucket, number))
        if found is None:
            population = self.populations[bucket]
            epochs, positions = np.divmod(np.arange(population.stretch) + number * population.stretch, population.draws)
            found = np.empty_like(positions)
            for epoch in np.unique(epochs).tolist():
                here = epochs == epoch
                found[here] = self.rows_of(bucket, self._shuffle(bucket, epoch)(positions[here]), epoch)
            if len(self._stretches) > 2 * len(self.populations):
                self._stretches.clear()
            self._stretches[bucket, number] = found
        return found

    def _shuffle(self, bucket: int, epoch: int) -> Shuffle:
        draws = self.populations[bucket].draws
        return Shuffle(draws, key(self.seed, SHUFFLE, bucket, epoch), self.block, self.window)
