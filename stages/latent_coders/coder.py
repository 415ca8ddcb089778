"""A VAE as clipmill uses one: video to moments of latents and back, whatever network it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.latent_coders.info import CoderInfo

if TYPE_CHECKING:
    from torch import Tensor, dtype


@dataclass
class Moments:
    """What a VAE says of a video, unscaled: `mean` (B, Z, t, h, w) float32, with the `logvar` of a Gaussian, shaped
    like it, or the `tokens` (B, t, h, w) int64 that stand for it.
    """

    mean: Tensor
    logvar: Tensor | None = None
    tokens: Tensor | None = None


class LatentCoder(ABC):
    """`network` is loaded, on its device, for evaluation. Neither direction keeps gradients."""

    def __init__(self, info: CoderInfo, network: Any, device: str, dtype: dtype):
        self.info, self.network, self.device, self.dtype = info, network, device, dtype

    def encode(self, video: Tensor) -> Moments:
        """Video (B, 3, T, H, W) of floats in [-1, 1], on any device. Raises ValueError for frames or a size that the
        coder does not take: nothing is cut off or padded.
        """
        import torch

        if video.ndim != 5 or video.shape[1] != 3 or not video.is_floating_point():
            shape = tuple(video.shape)
            raise ValueError(f"a video of shape {shape}, {video.dtype}: floats (B, 3, T, H, W) are needed")
        self.info.latent_shape(*video.shape[2:])
        with torch.inference_mode():
            return self._encode(video.to(self.device, self.dtype))

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents (B, Z, t, h, w) to video (B, 3, T, H, W) float32, in [-1, 1]."""
        import torch

        if latents.ndim != 5 or latents.shape[1] != self.info.channels:
            raise ValueError(f"latents of shape {tuple(latents.shape)}: (B, {self.info.channels}, t, h, w) are needed")
        self.info.check_latents(latents.shape[2])
        with torch.inference_mode():
            return self._decode(latents.to(self.device, self.dtype)).float().clamp(-1, 1)

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens (B, t, h, w) to video, as `decode`. Raises ValueError where there are none, or not these."""
        raise ValueError(f"{self.info.kind} has no tokens")

    def check_frames(self, frames: int) -> None:
        """Raises ValueError, with what would do, for a number of frames that the coder does not take."""
        self.info.check_frames(frames)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(Z, t, h, w) of a clip. Raises ValueError for one that the coder does not take."""
        return self.info.latent_shape(frames, height, width)

    @abstractmethod
    def _encode(self, video: Tensor) -> Moments: ...

    @abstractmethod
    def _decode(self, latents: Tensor) -> Tensor: ...
