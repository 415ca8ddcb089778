"""Latents as the network sees them: sampled from the VAE's posterior and normalized channel by channel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


class KeyedGenerators:
    """Random number generators by key, so that noise is the same after a resume and on any number of ranks.

    `device` is where their numbers are made.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self.seed, self.device = seed, torch.device(device)

    def __call__(self, *key: Any, cpu: bool = False) -> torch.Generator:
        """A generator seeded by a hash of (seed, *key)."""
        text = "/".join(map(str, (self.seed, *key))).encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
        return torch.Generator("cpu" if cpu else self.device).manual_seed(number)


def normalized(
    latents: Mapping[str, Tensor], contract: Mapping[str, Any], generators: Iterable[torch.Generator] | None
) -> Tensor:
    """(z - mean) / std, (B, C, T, H, W) float32, by the contract's mean and std of each channel.

    z = latent mean + exp(logvar / 2) noise with one generator for each sample; without generators z is the mean.
    """
    z = latents["mean"].float()
    if generators is not None and "logvar" in latents:
        z = z + (latents["logvar"].float() / 2).exp() * gaussian_noise(z, generators)
    mean, std = channel_statistics(contract, z.device)
    return (z - mean) / std


def channel_statistics(contract: Mapping[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents, each (C, 1, 1, 1) float32."""
    mean, std = (
        torch.tensor(contract[name], dtype=torch.float32, device=device).view(-1, 1, 1, 1) for name in ("mean", "std")
    )
    return mean, std


def gaussian_noise(like: Tensor, generators: Iterable[torch.Generator]) -> Tensor:
    """Standard normal noise of the shape and device of `like` (B, ...), with one generator for each sample."""
    shape = like.shape[1:]
    return torch.stack([torch.randn(shape, generator=each, device=each.device).to(like.device) for each in generators])
