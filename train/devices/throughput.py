"""How fast a device multiplies matrices: the peak that model FLOPs utilisation (MFU) is a share of."""

from __future__ import annotations

import time

import torch

SECONDS = 0.3  # of measuring


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of one large product of random matrices in `dtype`, the best of several: what the device reaches, which is
    less than its maker states. (Ones or zeros take a GPU less power, so it would clock higher than in any training.)
    """
    size = 8192 if device.type == "cuda" else 512
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, dtype=dtype, device=device, generator=generator) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until or best == float("inf"):
        synchronize(device)
        begin = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Returns when a GPU has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
