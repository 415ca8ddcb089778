"""The loss on held-out clips at fixed times with fixed noise, so that it changes only with the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from train.data.batches import Batch, micro_batches, to_device
from train.data.conditions import Conditions
from train.devices.parallel import Ranks
from train.loop.tasks import Task


@dataclass
class Validation:
    """Validates on this rank's `batches`. Every rank has as many of each shape, as sharded weights are gathered by all
    ranks together. `times` is the number of times that the loss is taken at.
    """

    task: Task
    conditions: Conditions
    batches: Sequence[Batch]
    ranks: Ranks
    times: int

    @torch.no_grad()
    def __call__(self, module: nn.Module, autocast: Callable[[], AbstractContextManager[object]]) -> dict[str, float]:
        """{"loss": the mean over times, and the loss at each time by its name}; {} where nothing is held out."""
        names = self.task.validation_names(self.times)
        sums = torch.zeros(len(names) + 1, dtype=torch.float64, device=self.ranks.device)  # losses, number of clips
        for batch in self.batches:
            batch = to_device(batch, self.ranks.device)
            (part,) = micro_batches(batch, self.conditions(batch, drop=False), 1)
            with autocast():
                losses = self.task.validation_losses(module, part, self.times)  # (times, B)
            sums[:-1] += losses.double().sum(1)
            sums[-1] += losses.shape[1]
        *totals, count = self.ranks.sum(sums).tolist()
        if not count:
            return {}
        means = [each / count for each in totals]
        return {"loss": sum(means) / len(means), **dict(zip(names, means, strict=True))}
