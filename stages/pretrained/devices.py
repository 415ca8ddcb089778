"""Chooses what a model runs on: GPU or CPU, number format and cores."""

from __future__ import annotations

import os

from stages.base import SettingsError


def on_gpu(device: str) -> bool:
    """Whether a worker should ask for a GPU: told so, or 'auto' on a machine that has one. Loads no torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    return device == "cuda" or (device == "auto" and not hidden and os.path.exists("/dev/nvidiactl"))


def torch_device(device: str) -> str:
    """The torch device for a setting; 'auto' is a GPU where torch sees one. Raises SettingsError where it sees none."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"device: {device}, but there is no GPU that torch can use")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def dtype_on(device: str, dtype: str, gpu: str = "bfloat16") -> str:
    """The number format for a setting on that device; 'auto' is `gpu` on GPUs and float32 on CPUs."""
    return dtype if dtype != "auto" else gpu if device.startswith("cuda") else "float32"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_a_core() -> None:
    """Keeps torch off one core, which decodes. Where Ray or the user has set OMP_NUM_THREADS, that decides instead."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores() - 1))
