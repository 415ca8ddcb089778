"""The interface between VAE training and its data: windows of clips as pixels, wherever they are decoded from."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


@dataclass
class Windows:
    """Windows of clips, `video` (B, T, H, W, 3) uint8 RGB, with the ids of their clips; and clips that should be among
    them but could not be decoded, each with the reason.
    """

    video: Tensor
    clip_ids: list[str]
    failed: dict[str, str] = field(default_factory=dict)


class Clips(Protocol):
    """`identity` is a hash of the clips and their windows: the same identity gives the same windows."""

    identity: str

    def batches(self, step: int) -> Generator[Windows, None, None]:
        """Endless batches, from those of `step` on."""

    def held_out(self) -> Iterator[Windows]:
        """Clips that are never trained on."""

    def training_sample(self) -> Iterator[Windows]:
        """Some of the clips that are trained on."""


def pixels(video: Tensor, device: torch.device | str) -> Tensor:
    """(B, T, H, W, 3) uint8 to (B, 3, T, H, W) float32 in [-1, 1]."""
    return video.to(device, non_blocking=True).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
