"""Quality of a trained VAE on held-out clips, and the statistics of its latents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.vae.causal_vae import CausalVAE
from train.evaluation.reconstruction import WINDOW, mean_colour, psnr, ssim
from train.vae.losses.losses import PairDistance, frames
from train.vae.windows import Windows, pixels

SHOWN = 6  # clips kept for the picture


@dataclass
class Measured:
    """One number per clip, the mean of its frames. `originals` and `reconstructions` are those of the first clips, (T,
    H, W, 3) uint8.
    """

    clip_ids: list[str] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    mean_colour_psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    lpips: list[float] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    originals: list[Tensor] = field(default_factory=list)
    reconstructions: list[Tensor] = field(default_factory=list)

    def numbers(self) -> dict[str, Any]:
        """Means over clips; None for what was not measured."""
        names = ("psnr", "mean_colour_psnr", "ssim", "lpips")
        found = {name: _mean(getattr(self, name)) for name in names}
        return {"clips": len(self.clip_ids), **found}


@torch.no_grad()
def measure(
    vae: CausalVAE, held_out: Iterable[Windows], device: torch.device, lpips: PairDistance | None = None
) -> Measured:
    """Compares originals with their reconstructions from the mean of their latents, clip by clip."""
    training, found = vae.training, Measured()
    vae.eval()
    try:
        for windows in held_out:
            found.failed |= windows.failed
            for clip, window in zip(windows.clip_ids, windows.video, strict=True):
                video = pixels(window[None], device)
                back = vae(video)[0].float().clamp(-1, 1)
                a, b = frames(video), frames(back)
                found.clip_ids.append(clip)
                found.psnr.append(psnr(a, b).mean().item())
                found.mean_colour_psnr.append(psnr(a, frames(mean_colour(video))).mean().item())
                if min(a.shape[2:]) >= WINDOW:
                    found.ssim.append(ssim(a, b).mean().item())
                if lpips is not None:
                    found.lpips.append(lpips(a, b).mean().item())
                if len(found.originals) < SHOWN:
                    found.originals.append(window)
                    shown = ((back[0].permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8).cpu()
                    found.reconstructions.append(shown)
    finally:
        vae.train(training)
    return found


@torch.no_grad()
def latent_statistics(
    vae: CausalVAE, sample: Iterable[Windows], device: torch.device
) -> tuple[list[float] | None, list[float] | None]:
    """Mean and standard deviation of each channel of the latents as a trainer samples them, mean + exp(logvar / 2)
    noise; (None, None) for an empty sample.
    """
    channels = vae.settings.channels
    count, sums, squares = 0, *(torch.zeros(channels, dtype=torch.float64) for _ in range(2))
    training = vae.training
    vae.eval()
    for windows in sample:
        if not windows.clip_ids:
            continue
        found = vae.encode(pixels(windows.video, device))
        mean = found.mean.double().cpu().transpose(0, 1).flatten(1)  # (Z, B T h w)
        second = mean.square()
        if found.logvar is not None:
            second = second + found.logvar.double().cpu().transpose(0, 1).flatten(1).exp()
        count += mean.shape[1]
        sums += mean.sum(1)
        squares += second.sum(1)
    vae.train(training)
    if not count:
        return None, None
    mean = sums / count
    std = (squares / count - mean.square()).clamp(min=1e-12).sqrt()
    return mean.tolist(), std.tolist()


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
