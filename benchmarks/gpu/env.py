"""What the machine is, and its two ceilings: bytes copied and matrices multiplied a second."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from gpu.report import Report
from gpu.timing import median_seconds
from train.devices.throughput import measured_peak

PACKAGES = ("numpy", "triton", "pyarrow", "pydantic", "av", "open_clip_torch", "safetensors")


def run(report: Report, device: str) -> None:
    report.case("machine", lambda: machine(device))
    report.case("copy", lambda: copies(device))
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    report.case(
        "matrices",
        lambda: {
            "tflop_per_s": (rate := measured_peak(torch.device(device), dtype) / 1e12),
            "shown": f"{rate:.4g} TFLOP/s (expected ~790)",
        },
    )


def machine(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    found["packages"] = {name: version for name in PACKAGES if (version := _version(name))}
    if device == "cuda":
        found |= {
            "card": torch.cuda.get_device_name(),
            "memory_gb": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "attention": {
                "flash": torch.backends.cuda.flash_sdp_enabled(),
                "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
                "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
            },
        }
    return found | {"shown": f"{found.get('card', 'CPU')}, torch {found['torch']}, cuDNN {found.get('cudnn', '-')}"}


def copies(device: str) -> dict[str, Any]:
    """On the device (read and written bytes counted), and from pinned memory of the host."""
    count = 2**30 if device == "cuda" else 2**26
    source = torch.randint(255, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found = {"device_tb_per_s": 2 * count / median_seconds(lambda: target.copy_(source), device) / 1e12}
    if device == "cuda":
        host = torch.empty(2**28, dtype=torch.uint8).pin_memory()
        there = torch.empty(2**28, dtype=torch.uint8, device=device)
        took = median_seconds(lambda: there.copy_(host, non_blocking=True), device)
        found["from_host_gb_per_s"] = 2**28 / took / 1e9
    shown = ", ".join(f"{name.split('_')[0]} {value:.3g}" for name, value in found.items())
    return found | {"shown": f"{shown} (TB/s, GB/s; expected 3.0 H100, 4.3 H200)"}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
