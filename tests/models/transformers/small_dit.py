"""A small DiT with weights as after training, and inputs for it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from models.settings.transformers import DiTSettings
from models.transformers.dit import DiT

SMALL = dict(width=48, depth=2, heads=4, channels=3, text_dim=10, conditions=("motion", "fps"))
ATTENTIONS = ("full", "factorised")


def stirred(network: nn.Module, amount: float = 0.1) -> nn.Module:
    """The network with random numbers added to its weights, so that none is 0, as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * amount)
    return network


@functools.cache
def network(attention: str = "full", **changes) -> DiT:
    return stirred(DiT(DiTSettings(**{**SMALL, "attention": attention, **changes}))).eval().requires_grad_(False)


def inputs(batch: int = 2, shape: tuple[int, int, int] = (3, 4, 6)) -> dict[str, Tensor]:
    """Inputs of every kind that a network takes."""
    return {
        "x": torch.randn(batch, 3, *shape),
        "t": torch.rand(batch),
        "text": torch.randn(batch, 5, 10),
        "text_mask": torch.arange(5).expand(batch, -1) < torch.randint(1, 5, (batch, 1)),
        "conditions": torch.randn(batch, 2),
    }


def near(one: Tensor, two: Tensor, atol: float = 1e-5) -> bool:
    return torch.allclose(one, two, rtol=1e-4, atol=atol)
