"""The exponential moving average of a network's weights, which is what samples are drawn from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

COUNT = "ema.updates"


class EMA:
    """Averages in float32 of every parameter of `module`; buffers are taken as they are.

    The decay of update n is min(decay, (1 + n) / (10 + n)): a young average forgets the weights it began with.
    Works on sharded parameters (DTensor) as on whole ones.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay {decay!r}: from 0 to below 1")
        self.module, self.decay, self.updates = module, decay, 0
        self.average = {name: p.detach().to(torch.float32, copy=True) for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """One step towards the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = [parameter.detach().float() for parameter in self.module.parameters()]
        torch._foreach_lerp_(list(self.average.values()), now, 1 - decay)
        self.updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter's name, not copied, and the number of updates."""
        return {**self.average, COUNT: torch.tensor(self.updates)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError where the state is of another module."""
        if differing := sorted(set(state) ^ {*self.average, COUNT}):
            raise ValueError(f"the average is of another network: {differing[0]} is in one of them only")
        for name, average in self.average.items():
            average.copy_(state[name])
        self.updates = int(state[COUNT])

    @contextmanager
    @torch.no_grad()
    def applied(self, module: nn.Module | None = None) -> Iterator[None]:
        """Inside, the module (the averaged one, or another of the same parameters) has the averaged weights."""
        module = module or self.module
        parameters = dict(module.named_parameters())
        kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.copy_(self.average[name])
            _not_gathered(module)
            yield
        finally:
            with torch.no_grad():  # the caller may have switched gradients on between
                for name, parameter in parameters.items():
                    parameter.copy_(kept[name])
            _not_gathered(module)


def _not_gathered(module: nn.Module) -> None:
    """Shared-out weights (FSDP2) that were gathered for a forward pass, and stayed so, are not those of now."""
    for each in module.modules():
        if hasattr(each, "reshard"):
            each.reshard()
