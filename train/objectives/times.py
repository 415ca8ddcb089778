"""Distributions of the times that are trained on, and the times that a sampler steps through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.settings.validation import CheckedSettings, above_0

LawName = Literal["uniform", "logit_normal"]


@dataclass(frozen=True)
class TimeLaw(CheckedSettings):
    """Distribution of times: uniform, or logit_normal (Esser et al. 2024), which favours the middle: sigmoid of N(mean,
    std^2).

    More tokens hide the same noise better, so times are shifted towards noise: t -> s t / (1 + (s - 1) t) with s =
    `shift` x sqrt(tokens / `base_tokens`) (Esser et al. 2024, 5.3.2). Without `base_tokens`, s = `shift`.
    """

    name: LawName = "uniform"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0
    base_tokens: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        above_0(self, "std", "shift", "base_tokens")

    def shifted(self, t: Tensor, tokens: int | None = None) -> Tensor:
        """Times in [0, 1], of any shape, shifted towards 1 for that many tokens; 0 and 1 stay.

        Raises ValueError where the shift depends on tokens and none are given.
        """
        shift = self.shift
        if self.base_tokens is not None:
            if tokens is None:
                raise ValueError(f"times are shifted against {self.base_tokens} base tokens: say how many tokens x has")
            shift *= math.sqrt(tokens / self.base_tokens)
        return shift * t / (1 + (shift - 1) * t)

    def quantile(self, u: Tensor, tokens: int | None = None) -> Tensor:
        """Times in [0, 1] at the quantiles u in [0, 1], of any shape: uniform u give times with this distribution."""
        if self.name == "logit_normal":
            u = torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))
        return self.shifted(u, tokens)

    def walk(self, steps: int, tokens: int | None = None) -> Tensor:
        """(steps + 1,) float64 times from 1 down to 0, equidistant before the shift."""
        if steps < 1:
            raise ValueError(f"{steps} steps: at least one")
        return self.shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), tokens)
