"""A whole training step of the largest transformers, compiled: tokens a second and MFU; and buckets that alternate."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from train_step import Step, batch_of

from gpu.report import Report
from gpu.timing import median_seconds, peak_gb
from models.settings.transformers import SIZES
from train.devices.throughput import measured_peak

GOAL = 0.5
CHANNELS = 8


def run(report: Report, device: str) -> None:
    gpu = device == "cuda"
    args = argparse.Namespace(
        device=device, dtype="bfloat16" if gpu else "float32", compile=gpu, text_dim=1024 if gpu else 32,
        text_tokens=256 if gpu else 8,
    )  # fmt: skip
    rate = measured_peak(torch.device(device), getattr(torch, args.dtype))
    sizes = [size for size in ("XL128", "XL") if size in SIZES] if gpu else ["debug"]
    longer = ((4, (8, 64, 64)), (2, (16, 64, 64)), (1, (32, 64, 64))) if gpu else ((2, (2, 8, 8)),)
    for size in sizes:
        steps: dict[str, Step] = {}
        for batch, latents in longer:
            tokens = latents[0] * latents[1] * latents[2] // 4
            work = lambda size=size, b=batch, s=latents, steps=steps: timed(args, steps, size, b, s, rate)  # noqa: E731
            report.case(f"{size} {tokens} x {batch}", work, least=20 if gpu else 0)
        if size == sizes[0]:
            clips, images = (longer[0], (32, (1, 64, 64))) if gpu else (longer[0], (4, (1, 8, 8)))
            report.case("mixed buckets", lambda: mixed(args, steps[size], clips, images), least=15 if gpu else 0)  # noqa: B023
        steps.clear()


def timed(
    args: argparse.Namespace, steps: dict[str, Step], size: str, batch: int, latents: tuple[int, int, int], rate: float
) -> dict[str, Any]:
    step = steps.setdefault(size, None) or Step(args, size, "full")  # type: ignore[arg-type]
    steps[size] = step
    shape = (batch, CHANNELS, *latents)
    inputs = batch_of(args, shape)
    took = median_seconds(lambda: step(*inputs), args.device, rounds=5, warm=3, most=6.0)
    mfu = step.flops(shape) / took / rate
    tokens = batch * latents[0] * latents[1] * latents[2] // 4
    found = {"step_s": took, "tokens_per_s": tokens / took, "mfu": mfu, "peak_gb": peak_gb(args.device)}
    return found | {
        "shown": f"MFU {mfu:.3f}, {tokens / took:,.0f} tokens/s, {found['peak_gb']} GB (>= .45, goal {GOAL})"
    }


def mixed(args: argparse.Namespace, step: Step, *kinds: tuple[int, tuple[int, int, int]]) -> dict[str, Any]:
    """Steps of two buckets in turn, against the mean of each bucket alone: what compiled blocks lose by changing."""
    batches = [batch_of(args, (batch, CHANNELS, *latents)) for batch, latents in kinds]
    alone = [median_seconds(lambda b=each: step(*b), args.device, rounds=4, warm=3, most=4.0) for each in batches]

    def both() -> None:
        for each in batches:
            step(*each)

    took = median_seconds(both, args.device, rounds=4, warm=1, most=6.0)
    share = sum(alone) / took
    uneven = max(alone) / min(alone)
    shown = f"{share:.3f} of each alone (>= .9); steps differ {uneven:.2f} times"
    return {"alone_s": alone, "in_turn_s": took, "share": share, "longest_over_shortest": uneven, "shown": shown}
