"""Training runs on made-up clips: ended and resumed against never ended, on this device."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gpu.report import Report
from tests.train import runs
from train.devices.parallel import Ranks

CLOSE = 1e-2  # greatest relative difference of weights where kernels may add up in another order


def run(report: Report, device: str) -> None:
    for kind in ("dit", "tokens"):
        report.case(f"{kind} resumed", lambda kind=kind: resumed(device, kind=kind), least=5)
    report.case("resumed, compiled", lambda: resumed(device, compile=device == "cuda"), least=15)
    report.case("deterministic", lambda: resumed(device, exact=True, deterministic=True), least=10)
    report.case("checkpointed", lambda: resumed(device, activation_checkpointing=True), least=5)
    report.case("sharded", lambda: sharded(device), least=20 if device == "cuda" else 0)


def sharded(device: str) -> dict[str, Any]:
    """FSDP2 on a mesh of one rank, with compiled and checkpointed blocks: all that several ranks run, save exchange."""
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        return resumed(device, parallel="fsdp", compile=device == "cuda", activation_checkpointing=True)
    finally:
        dist.destroy_process_group()


def resumed(device: str, exact: bool = False, **changes: Any) -> dict[str, Any]:
    """6 steps against 3 and, resumed in another Training, 3 more."""
    ranks = Ranks(device=torch.device(device, 0) if device == "cuda" else torch.device("cpu"))
    options = {"checkpoint": {"every": 3, "keep": 3}, "compile": False, **changes}
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        runs.train(whole, ranks, steps=6, **options)
        runs.train(parts, ranks, steps=3, **options)
        runs.train(parts, ranks, resume=True, steps=6, **options)
        wanted, found = runs.weights(whole), runs.weights(parts)
    error = max(float((found[name] - w).norm() / w.norm().clamp_min(1e-12)) for name, w in wanted.items())
    equal = all(torch.equal(found[name], w) for name, w in wanted.items())
    said = "bit-equal" if equal else f"off by {error:.1e}"
    return {"error": error, "bit_equal": equal, "ok": equal if exact else error <= CLOSE, "shown": said}
