"""What a loader draws from: the buckets of a dataset with their weights and shares, and the identity of an order."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from curate.datasets.files import Dataset
from curate.errors import UserError
from curate.loader.errors import log
from curate.loader.order import Population, SampleOrder
from curate.loader.permutation import key


def populations(
    dataset: Dataset, batch_size: int | Mapping[str, int], world: int, mix: Mapping[str, float] | None
) -> list[Population]:
    """The buckets with the draws of an epoch that weights and mix give them, as Loader takes them. UserError for what
    gives no batch.
    """
    weights = dataset.columns(["weight"])["weight"].to_numpy() if dataset.weighted else None
    for name, share in (mix or {}).items():
        if name not in dataset.buckets or not 0 <= share < np.inf:
            raise UserError(
                f"mix {name}: {share!r}: expected buckets of {', '.join(dataset.buckets)} and shares from 0"
            )
    if not isinstance(batch_size, int) and (unknown := [name for name in batch_size if name not in dataset.buckets]):
        raise UserError(f"batch_size of {', '.join(unknown)}: the dataset has the buckets {', '.join(dataset.buckets)}")
    shares: dict[str, float] = {}
    sums: dict[str, np.ndarray] = {}  # cumulative weights, if there are any
    for name, bucket in dataset.buckets.items():
        total = float(bucket.samples)
        if weights is not None:
            sums[name] = np.cumsum(weights[bucket.first : bucket.first + bucket.samples])
            total = float(sums[name][-1])
        shares[name] = total if mix is None else float(mix.get(name, 0.0)) * (total > 0)
    whole = sum(shares.values())
    if not whole > 0:
        raise UserError("the shares of mix give no sample at all")
    found = []
    for name, bucket in dataset.buckets.items():
        if shares[name] > 0:
            size = batch_size if isinstance(batch_size, int) else batch_size.get(name)
            if size is None:
                raise UserError(f"batch_size lacks a size for the bucket {name} of the dataset")
            if size < 1 or size % world:
                raise UserError(f"batch_size {size} of bucket {name}: expected a multiple of {world}, the ranks")
            draws = max(1, round(dataset.samples * shares[name] / whole))
            found.append(Population(name, bucket.first, bucket.samples, draws, size, sums.get(name)))
    _refuse_too_few(dataset, found)
    return found


def _refuse_too_few(dataset: Dataset, populations: Sequence[Population]) -> None:
    small = [p for p in populations if p.samples < p.batch_size]
    said = ", ".join(f"{p.name} has {p.samples} for a batch of {p.batch_size}" for p in small)
    if len(small) == len(populations):
        raise UserError(f"too few clips for one batch: {said}. Take a smaller batch_size, or more clips")
    if small:
        log.warning("buckets with fewer clips than a batch, whose batches hold some twice: %s", said)


def identity(dataset: Dataset, order: SampleOrder) -> int:
    """A hash of all that the order depends on, besides the seed."""
    made = zlib.crc32(f"{dataset.name} {dataset.about.get('created')} {dataset.contract.digest}".encode())
    numbers = [order.block, order.window, dataset.samples, made]
    for population in order.populations:
        numbers += [population.first, population.samples, population.draws, population.batch_size]
    return key(*numbers) >> 1
