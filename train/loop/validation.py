"""The loss on held-out clips, at fixed times with fixed noise: what changes in it is the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from train.data.batches import Batch, Conditions, moved, parts
from train.devices.parallel import Ranks
from train.loop.tasks import Task


@dataclass
class Validation:
    """Over this rank's `batches`; each rank has as many of each shape, since shared-out weights are gathered by all."""

    task: Task
    conditions: Conditions
    batches: Sequence[Batch]
    ranks: Ranks
    times: int

    @torch.no_grad()
    def __call__(self, module: nn.Module, precision: Callable[[], AbstractContextManager]) -> dict[str, float]:
        """{"loss": the mean, and the loss at each time by its name}; {} where nothing is held out."""
        names = self.task.validation_names(self.times)
        total = torch.zeros(len(names) + 1, dtype=torch.float64, device=self.ranks.device)  # losses, and of how many
        for batch in self.batches:
            batch = moved(batch, self.ranks.device)
            (part,) = parts(batch, self.conditions(batch, drop=False), 1)
            with precision():
                losses = self.task.validation_losses(module, part, self.times)  # (times, B)
            total[:-1] += losses.double().sum(1)
            total[-1] += losses.shape[1]
        total = self.ranks.sum(total).tolist()
        if not total[-1]:
            return {}
        means = [each / total[-1] for each in total[:-1]]
        return {"loss": sum(means) / len(means), **dict(zip(names, means, strict=True))}
