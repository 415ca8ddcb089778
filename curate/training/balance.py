"""The sizes of `batch_size: balanced`: those that a resumed run recorded, or measured on a few clips of the dataset."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from curate.datasets.files import Dataset
from curate.loader import Loader
from curate.training.batches import fixed_batches
from models.files import read_object
from train.config.training import TrainConfig
from train.data.batch_sizes import Balance, drawn_buckets
from train.data.batches import Batch, TrainingData
from train.devices.determinism import deterministic_kernels
from train.devices.parallel import Ranks
from train.loop.balance import balanced, measure, said
from train.loop.network import build
from train.loop.tasks import task_for
from train.run.lineage import BALANCED, CONFIG


class NoBatches:
    """The loader of data that is looked at before there is one."""

    def __iter__(self) -> Iterator[Batch]:
        return iter(())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""


def find_balance(
    config: TrainConfig,
    data: TrainingData,
    dataset: Dataset,
    ranks: Ranks,
    folder: Path | None,
    open_loader: Callable[..., Loader],
) -> Balance:
    """What the run in `folder` has recorded for this budget, or what the first rank measures on clips of `dataset`."""
    recorded = read_object(folder / CONFIG).get(BALANCED) if folder is not None else None
    if recorded is not None and recorded["asked"] == config.balance.to_dict():
        return Balance.from_dict(recorded)
    task = task_for(config, build(config, data), data, ranks.device)
    tokens = {name: task.tokens((1, *data.shapes[name])) for name in drawn_buckets(config, data.shapes)}
    samples = {name: bucket.samples for name, bucket in dataset.buckets.items()}
    there = {name: count for name, count in tokens.items() if name in samples}
    share = (config.balance.tokens or 0) // ranks.world // config.accumulate or max(tokens.values())

    def batch_of(bucket: str) -> Batch:
        count = min(max(1, share // tokens[bucket]), samples[bucket])
        return fixed_batches(dataset, {bucket: count}, count, 1, partial(open_loader, rank=0, world=1))[0]

    found = None
    if ranks.first:
        with deterministic_kernels(config.deterministic):
            timed, update_s = measure(config, data, there, batch_of, ranks.device)
        found = balanced(config, tokens, samples, timed, update_s, ranks.world)
    balance = ranks.gathered(found)[0]
    if ranks.first:
        for line in said(balance, tokens, ranks.world):
            print(line, file=sys.stderr)
    return balance
