"""Batches of the loader while the device is busy: is each what a CPU loader gives, and how fast do they come?"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from loader import BATCH, make_dataset
from torch import Tensor

from curate.loader import Loader
from gpu.report import Report
from gpu.timing import wait

BATCHES = 40


def run(report: Report, device: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder), 512 if device == "cuda" else 64)
        report.case("behind a busy stream", lambda: compared(dataset, device))
        report.case("rate", lambda: rate(dataset, device), least=4)


def compared(dataset: Path, device: str) -> dict[str, Any]:
    """Batches are asked for while products of matrices that take longer are ahead of their copies in the stream: a
    buffer that was filled again too early would show.
    """
    count = BATCHES if device == "cuda" else 8
    size = 8192 if device == "cuda" else 64
    busy = torch.randn(size, size, device=device)
    with Loader(dataset, batch_size=BATCH, device=device, ahead=4) as loader:
        found = []
        for _ in range(count):
            busy = busy @ busy
            busy /= busy.norm()
            found.append(hashes(next(loader)))  # queued behind the product, not waited for
        wait(device)
        here = [int(each) for each in found]
    with Loader(dataset, batch_size=BATCH) as loader:
        wanted = [int(hashes(next(loader))) for _ in range(count)]
    wrong = sum(a != b for a, b in zip(here, wanted, strict=True))
    return {"batches": count, "wrong": wrong, "ok": not wrong, "shown": f"{wrong} of {count} batches differ"}


def rate(dataset: Path, device: str) -> dict[str, Any]:
    with Loader(dataset, batch_size=BATCH, device=device) as loader, contextlib.redirect_stdout(io.StringIO()):
        for _ in range(16):
            batch = next(loader)
        wait(device)
        began, total = time.perf_counter(), 0
        for _ in range(BATCHES if device == "cuda" else 8):
            batch = next(loader)
            total += sum(each.nbytes for each in tensors(batch))
        wait(device)
        speed = total / (time.perf_counter() - began) / 1e9
    return {"gb_per_s": speed, "shown": f"{speed:.3g} GB/s"}


def tensors(batch: Any) -> list[Tensor]:
    return [*batch.latents.values(), batch.text, batch.text_mask]


def hashes(batch: Any) -> Tensor:
    """A sum of all bytes, each weighted by its place, on the batch's device: exact, as it is of integers."""
    total = torch.zeros((), dtype=torch.int64, device=batch.text.device)
    for tensor in tensors(batch):
        values = tensor.contiguous().view(torch.uint8).flatten().to(torch.int64)
        total += (values * (torch.arange(len(values), device=values.device) % 65_521 + 1)).sum()
    return total
