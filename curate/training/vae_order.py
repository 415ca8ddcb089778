"""Which clips a step of a VAE's training sees: a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

from stages.windows.buckets import Bucket

Clip = TypeVar("Clip")
Groups = dict[Bucket, list[Clip]]

STEPS, ORDER = 1 << 40, 1 << 41  # parts of seeds, greater than the number of any step


class ClipOrder(Generic[Clip]):
    """A step sees images or videos, of one bucket, which is drawn by its number of clips. Each clip of a group comes
    once before any comes again.
    """

    def __init__(
        self, images: Groups[Clip], videos: Groups[Clip], image_share: float, batch_size: int, seed: int, steps: int
    ):
        self.batch_size, self.seed = batch_size, seed
        share = image_share if videos else 1.0
        drawn = np.random.default_rng((seed, STEPS)).random((steps, 2), dtype=np.float32)
        self.groups: list[tuple[bool, Bucket, Sequence[Clip]]] = []
        self.numbers = np.zeros(steps, np.int32)  # (steps,) number of the group that a step sees
        for image, groups in ((True, images), (False, videos)):
            of = np.flatnonzero((drawn[:, 0] < share) == image)
            sizes = np.cumsum([len(clips) for clips in groups.values()])
            if len(of):
                places = np.searchsorted(sizes / sizes[-1], drawn[of, 1], side="right")
                self.numbers[of] = len(self.groups) + np.minimum(places, len(sizes) - 1)
            self.groups += [(image, bucket, clips) for bucket, clips in groups.items()]
        self._last: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.empty(0))

    def step(self, step: int) -> tuple[bool, Bucket, list[Clip]]:
        """(whether the step sees images, their bucket, a clip for each place of the batch)."""
        number = int(self.numbers[step % len(self.numbers)])
        before = int((self.numbers[: step % len(self.numbers)] == number).sum())
        before += step // len(self.numbers) * int((self.numbers == number).sum())
        image, bucket, clips = self.groups[number]
        places = range(before * self.batch_size, (before + 1) * self.batch_size)
        return image, bucket, [clips[self._index(number, place, len(clips))] for place in places]

    def counts_before(self, step: int) -> list[np.ndarray]:
        """For each of `groups`, how often the steps before this one draw each of its clips."""
        found = []
        steps = np.bincount(self.numbers[:step], minlength=len(self.groups))
        for number, (_, _, clips) in enumerate(self.groups):
            epochs, rest = divmod(int(steps[number]) * self.batch_size, len(clips))
            counts = np.full(len(clips), epochs)
            counts[self._permutation(number, epochs, len(clips))[:rest]] += 1
            found.append(counts)
        return found

    def _index(self, number: int, place: int, count: int) -> int:
        epoch, index = divmod(place, count)
        if self._last[0] != (number, epoch):
            self._last = ((number, epoch), self._permutation(number, epoch, count))
        return int(self._last[1][index])

    def _permutation(self, number: int, epoch: int, count: int) -> np.ndarray:
        return np.random.default_rng((self.seed, ORDER, number, epoch)).permutation(count)
