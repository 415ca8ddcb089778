"""How fast a device can be: what the model FLOPs utilisation (MFU) of a run is a share of."""

from __future__ import annotations

import time

import torch

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


def _done(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
