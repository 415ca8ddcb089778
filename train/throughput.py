"""How fast a run is against what its devices could do."""

from __future__ import annotations

import time

import torch
from torch import nn

SECONDS = 0.3  # of measuring


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of one large matrix product in `dtype`, the best of several: what a device reaches, which is
    less than its maker says.
    """
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until or best == float("inf"):
        _done(device)
        begin = time.perf_counter()
        a @ b
        _done(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def step_flops(network: nn.Module, shape: tuple[int, ...], text_tokens: int) -> float:
    """Operations of a forward and a backward pass, which is twice a forward one, over latents of that shape; what
    activation checkpointing computes again is not counted (MFU as in PaLM, Chowdhery et al. 2022).
    """
    return 3.0 * network.flops(shape, text_tokens)


def _done(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
