"""The loader for trainers that use torch's DataLoader: an IterableDataset of ready batches.

    data = LatentBatches("datasets/demo", batch_size=256)
    for batch in DataLoader(data, batch_size=None, num_workers=2):  # a dict of tensors
        ...

Each of n worker processes takes every n-th step, so the DataLoader, which takes from its workers in turn, yields the
same batches in the same order as `Loader`. Without workers (num_workers=0) it is as fast as `Loader`; worker processes
copy every batch once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from curate.errors import UserError
from curate.loader.batch import Batch
from curate.loader.loader import Loader


class LatentBatches(IterableDataset):
    """One epoch of batches each time it is iterated, or without end if `endless`.

    `options` are those of Loader. `rank` and `world` come from torch.distributed where it is initialised. Call
    `set_epoch` before each epoch, as with a DistributedSampler. UserError as from Loader, at once.
    """

    def __init__(self, folder: str | Path, *, endless: bool = False, **options: Any):
        super().__init__()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            options.setdefault("rank", torch.distributed.get_rank())
            options.setdefault("world", torch.distributed.get_world_size())
        self.folder, self.endless, self.options = folder, endless, options
        with Loader(folder, **options) as loader:  # so that errors are raised here, not in a worker
            self.order, self.seed, self.identity = loader.order, loader.seed, loader.identity
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration begin with the first batch of this epoch."""
        self.step = self.order.epoch_start(epoch)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Makes the next iteration begin at the step of this state, which may be a Loader's too."""
        if {"seed": self.seed, "order": self.identity} != {name: state.get(name) for name in ("seed", "order")}:
            raise UserError(
                "this state is of another dataset, seed or batch_size: it would repeat and leave out samples"
            )
        self.step = int(state["step"])

    def state_dict(self, step: int | None = None) -> dict[str, int]:
        """The state to resume from. Only the trainer knows how far it is: `step` is that of its last batch plus one."""
        return {"step": self.step if step is None else step, "seed": self.seed, "order": self.identity}

    def __len__(self) -> int:
        """Batches of the next iteration."""
        return self._end() - self.step

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        end = None if self.endless else self._end()
        with Loader(self.folder, **self.options, stride=workers) as loader:
            loader.load_state_dict(self.state_dict(self.step + number))
            while end is None or loader.step < end:
                yield as_dict(next(loader))

    def _end(self) -> int:
        return self.order.epoch_start(self.order.epoch_of(self.step) + 1)


def as_dict(batch: Batch) -> dict[str, Any]:
    """step, epoch, bucket, clip_ids, the latents by name, and text, text_mask, conditions where the batch has them."""
    found: dict[str, Any] = {
        "step": batch.step,
        "epoch": batch.epoch,
        "bucket": batch.bucket,
        "clip_ids": batch.clip_ids,
    }
    found |= batch.latents
    others = {"text": batch.text, "text_mask": batch.text_mask, "conditions": batch.conditions}
    return found | {name: value for name, value in others.items() if value is not None}
