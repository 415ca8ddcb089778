"""What a VAE learns from, as its training asks for it; where the pixels come from is not said here."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


@dataclass
class Windows:
    """Windows of clips, `video` (B, T, H, W, 3) uint8 RGB, and where they are from; and clips that were to be among
    them and could not be decoded, with the reason.
    """

    video: Tensor
    clip_ids: list[str]
    failed: dict[str, str] = field(default_factory=dict)


class Clips(Protocol):
    """`identity` is a hash of the clips and of what is cut out of them: the same one gives the same windows."""

    identity: str

    def batches(self, step: int) -> Generator[Windows, None, None]:
        """Those of the steps from that one on, one after another, for ever."""

    def held_out(self) -> Iterator[Windows]:
        """Clips that are never trained on."""

    def training_sample(self) -> Iterator[Windows]:
        """Some of those that are."""


def pixels(video: Tensor, device: torch.device | str) -> Tensor:
    """(B, T, H, W, 3) uint8 to (B, 3, T, H, W) float32 in [-1, 1]."""
    return video.to(device, non_blocking=True).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
