"""Gaussian data, with a mean and deviation per channel: the best network and the end of its flow are known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from train.objectives.objective import Objective

MEAN, STD = (-1.0, 0.2, 2.0), (0.3, 1.0, 1.7)


def per_channel(values, ndim: int = 5) -> Tensor:
    """(C,) numbers to (1, C, 1, ...) float64."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, *[1] * (ndim - 2))


@dataclass
class GaussianNetwork:
    """network(x_t, t, mean=...) for data N(mean, std^2), in the prediction of the objective; counts its calls."""

    objective: Objective
    std: Tensor
    calls: int = 0

    def __call__(self, x: Tensor, t: Tensor, mean: Tensor) -> Tensor:
        self.calls += 1
        point = self.objective.at(t, x)
        eps = point.sigma * (x - point.alpha * mean) / (point.alpha.square() * self.std.square() + point.sigma.square())
        clean = mean + point.alpha * self.std.square() * eps / point.sigma
        return point.combine(clean, eps, self.objective.prediction)


def predictor(objective: Objective, mean: Tensor | None = None, std: Tensor | None = None):
    """A `Predict` function without guidance."""
    mean = per_channel(MEAN) if mean is None else mean
    network = GaussianNetwork(objective, per_channel(STD) if std is None else std)
    return lambda x, t, step: network(x, t, mean)


def flow(objective: Objective, noise: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Where the exact probability flow takes noise from the objective's latest time to 0."""
    start = objective.at(torch.tensor(objective.latest), noise)
    spread_then = (start.alpha.square() * std.square() + start.sigma.square()).sqrt()
    return mean + std * (noise - start.alpha * mean) / spread_then
