"""Clips a second through the encoder of the published VAE, and the kernels that take the time."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from vae_encode import flops

from gpu.report import Report
from gpu.timing import median_seconds, peak_gb
from models.settings.vae import sized
from models.vae.causal_vae import CausalVAE
from train.devices.throughput import measured_peak

GOAL = 20  # clips a second


def run(report: Report, device: str) -> None:
    gpu = device == "cuda"
    size, shape = ("published", (81, 256, 256)) if gpu else ("debug", (9, 32, 32))
    dtype = torch.bfloat16 if gpu else torch.float32
    torch.manual_seed(0)
    vae = CausalVAE(sized(size, variant=4)).to(device, dtype).eval()
    rate = measured_peak(torch.device(device), dtype)
    last = copy.deepcopy(vae).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    for tuned in (False, True) if gpu else (False,):
        torch.backends.cudnn.benchmark = tuned
        note = ", benchmark" if tuned else ""
        report.case(f"eager{note}", lambda: timed(vae, shape, 1, size, rate, device), least=4)
        report.case(f"channels last{note}", lambda: timed(last, shape, 1, size, rate, device), least=4)
    if gpu:
        report.case("kernels", lambda: kernels(last, shape, device), least=5)
        fast = copy.deepcopy(last)
        fast.encoder.compile(dynamic=False)
        report.case("compiled", lambda: timed(fast, shape, 1, size, rate, device), least=25)
        report.case("kernels compiled", lambda: kernels(fast, shape, device), least=5)
        for batch in (2, 3, 4):
            report.case(f"batch {batch}", lambda batch=batch: timed(last, shape, batch, size, rate, device), least=4)


@torch.inference_mode()
def timed(
    vae: nn.Module, shape: tuple[int, int, int], batch: int, size: str, rate: float, device: str
) -> dict[str, Any]:
    video = torch.randn(batch, 3, *shape, device=device, dtype=vae.dtype).clamp_(-1, 1)  # type: ignore[arg-type]
    took = median_seconds(lambda: vae.encode(video), device)  # type: ignore[operator]
    clips, share = batch / took, batch * flops(size, 4, shape) / took / rate
    memory = peak_gb(device)
    shown = f"{clips:.2f} clips/s, {share:.0%} of peak, {memory} GB (>= 15, goal {GOAL})"
    return {"clips_per_s": clips, "share_of_matrix_rate": share, "peak_gb": memory, "shown": shown}


@torch.inference_mode()
def kernels(vae: nn.Module, shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """The ten kernels that take the most time, in milliseconds of one clip."""
    video = torch.randn(1, 3, *shape, device=device, dtype=vae.dtype)  # type: ignore[arg-type]
    vae.encode(video)  # type: ignore[operator]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        vae.encode(video)  # type: ignore[operator]
        torch.cuda.synchronize()
    found = sorted(profile.key_averages(), key=lambda each: -each.device_time_total)[:10]
    longest = [{"kernel": each.key[:120], "calls": each.count, "ms": each.device_time_total / 1e3} for each in found]
    return {"longest": longest, "shown": f"{longest[0]['kernel'][:40]} {longest[0]['ms']:.1f} ms"}
