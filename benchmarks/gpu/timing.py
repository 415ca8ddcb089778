"""Times of work on a device: by events on a GPU, whose clock the host's waiting does not touch, else by the host's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def median_seconds(work: Callable[[], Any], device: str, rounds: int = 5, warm: int = 2, most: float = 10.0) -> float:
    """The median of up to `rounds` runs after `warm` untimed ones; fewer runs where they take over `most` seconds."""
    for _ in range(warm):
        work()
    wait(device)
    found: list[float] = []
    while len(found) < rounds and sum(found) < most:
        found.append(_seconds(work, device))
    return statistics.median(found)


def _seconds(work: Callable[[], Any], device: str) -> float:
    if device != "cuda":
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def peak_gb(device: str) -> float | None:
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if device == "cuda" else None
