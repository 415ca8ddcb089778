"""Batches of chosen clips, the same each time: for validation, sample sheets and timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from curate.datasets.files import Dataset
from curate.loader import Batch, Loader
from curate.training.held_out import subset


def clips_per_rank(dataset: Dataset, clips: int, world: int) -> dict[str, int]:
    """How many clips of each bucket every rank takes, so that all ranks take about `clips`, by the buckets' sizes."""
    found = {}
    for name, bucket in dataset.buckets.items():
        wanted = max(world, round(clips * bucket.samples / dataset.samples))
        if count := min(bucket.samples, wanted) // world:
            found[name] = count
    return found


def fixed_batches(
    dataset: Dataset,
    counts: dict[str, int],
    at_once: int | Mapping[str, int],
    world: int,
    open_loader: Callable[..., Loader],
) -> list[Batch]:
    """Batches of at most `at_once` clips (a number, or one for each bucket) for this rank of `world`, of `counts` clips
    of each bucket, the same clips each time. Clips that do not fill a batch are left out. `open_loader` is a Loader
    with its options.
    """
    rows, sizes = [], {}
    for name, count in counts.items():
        bucket = dataset.buckets[name]
        size = min(count, at_once if isinstance(at_once, int) else at_once[name])
        sizes[name] = size * world
        taken = count // size * size * world
        rows.append(bucket.first + np.arange(taken) * bucket.samples // taken)  # spread over the shards
    if not rows:
        return []
    with open_loader(subset(dataset, np.concatenate(rows)), batch_size=sizes) as loader:
        return [next(loader) for _ in range(loader.len_epoch)]
