"""What a worker may take of this machine: a GPU, cores."""

from __future__ import annotations

import os


def on_gpu(device: str) -> bool:
    """Whether a worker should ask for a GPU: told so, or 'auto' on a machine that has one. Without torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    return device == "cuda" or (device == "auto" and not hidden and os.path.exists("/dev/nvidiactl"))


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_a_core() -> None:
    """Keeps the network off one core, which decodes; Ray (or the user) says by OMP_NUM_THREADS what it may take."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores() - 1))
