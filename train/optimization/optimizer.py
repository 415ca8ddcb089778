"""The optimizer of a training run: AdamW, its learning rate by step, and the norm of the gradient."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from train.config.training import OptimizerConfig


class DivergedError(RuntimeError):
    """The loss or the gradient is not finite: one line with the step and, where known, the clips."""


def make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices and none for vectors. It is fused on GPUs only: on CPUs, resumed runs were
    then not the same bit by bit.
    """
    parameters = list(network.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0, in a run of `steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    way = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    return config.lr * (config.final + (1 - config.final) * (1 + math.cos(math.pi * way)) / 2)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradient(network: nn.Module, most: float | None) -> float:
    """Scales the gradient of all weights to a norm of at most `most` (None: leaves it) and returns its norm before."""
    norm = nn.utils.clip_grad_norm_(network.parameters(), math.inf if most is None else most)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
