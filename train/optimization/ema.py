"""The exponential moving average (EMA) of a network's weights, which validation and sampling use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import get_ema_multi_avg_fn

COUNT = "ema.updates"


class EMA:
    """Averages in float32 of every parameter of `module`; buffers are not averaged.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that a young average forgets the initial weights.
    Works on sharded parameters (DTensor) as on whole ones.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay {decay!r}: from 0 to below 1")
        self.module, self.decay, self.updates = module, decay, 0
        self.average = {name: p.detach().to(torch.float32, copy=True) for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """One step towards the present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = [parameter.detach().float() for parameter in self.module.parameters()]
        get_ema_multi_avg_fn(decay)(list(self.average.values()), now, self.updates)
        self.updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name, not copied, and the number of updates."""
        return {**self.average, COUNT: torch.tensor(self.updates)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError for the state of another module."""
        if differing := sorted(set(state) ^ {*self.average, COUNT}):
            raise ValueError(f"the average is of another network: {differing[0]} is in one of them only")
        for name, average in self.average.items():
            average.copy_(state[name])
        self.updates = int(state[COUNT])

    @contextmanager
    @torch.no_grad()
    def applied(self, module: nn.Module | None = None) -> Iterator[None]:
        """Inside, the averaged module, or another `module` with the same parameters, has the averaged weights."""
        module = module or self.module
        parameters = dict(module.named_parameters())
        kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.copy_(self.average[name])
            _reshard(module)
            yield
        finally:
            with torch.no_grad():  # the caller may have enabled gradients inside
                for name, parameter in parameters.items():
                    parameter.copy_(kept[name])
            _reshard(module)


def _reshard(module: nn.Module) -> None:
    """Frees weights that FSDP2 gathered for a forward pass: they are out of date once the shards have changed."""
    for each in module.modules():
        if isinstance(each, FSDPModule):
            each.reshard()
