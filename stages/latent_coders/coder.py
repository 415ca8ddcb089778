"""A VAE as clipmill uses one: video to moments of latents and back, whatever network it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.latent_coders.info import CoderInfo

if TYPE_CHECKING:
    import numpy as np
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
    """`network` is loaded, on its device, for evaluation. Neither direction keeps gradients.

    A network that can go through a clip in pieces does so where the clip is large: the same result, with memory that
    does not grow with the clip's length.
    """

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
        pieces = video.split(self.frames_of_pieces(len(video), *video.shape[2:]), dim=2)
        with torch.inference_mode():
            return self._encode(piece.to(self.device, self.dtype) for piece in pieces)

    def encode_pixels(self, videos: Sequence[np.ndarray]) -> Moments:
        """The same of pixels, (T, H, W, 3) uint8 each and all of one shape, which become floats piece by piece."""
        import torch

        frames, height, width, _ = videos[0].shape
        self.info.latent_shape(frames, height, width)

        def pieces() -> Iterator[Tensor]:
            start = 0
            for count in self.frames_of_pieces(len(videos), frames, height, width):
                parts = [torch.from_numpy(video[start : start + count]) for video in videos]
                pixels = torch.stack(parts).to(self.device).permute(0, 4, 1, 2, 3)  # (B, 3, T, H, W)
                yield pixels.float().div_(127.5).sub_(1).to(self.dtype)
                start += count

        with torch.inference_mode():
            return self._encode(pieces())

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents (B, Z, t, h, w) to video (B, 3, T, H, W) float32, in [-1, 1]."""
        import torch

        return torch.cat(list(self.decode_pieces(latents)), dim=2)

    def decode_pieces(self, latents: Tensor) -> Iterator[Tensor]:
        """The video that `decode` gives, piece by piece along time."""
        import torch

        if latents.ndim != 5 or latents.shape[1] != self.info.channels:
            raise ValueError(f"latents of shape {tuple(latents.shape)}: (B, {self.info.channels}, t, h, w) are needed")
        self.info.check_latents(latents.shape[2])
        pieces = self._decode(latents.to(self.device, self.dtype))
        while True:
            with torch.inference_mode():  # not while the caller has a piece
                piece = next(pieces, None)
                if piece is None:
                    return
                piece = piece.float().clamp_(-1, 1)
            yield piece

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens (B, t, h, w) to video, as `decode`. Raises ValueError where there are none, or not these."""
        return self.decode(self.latents_of(tokens))

    def latents_of(self, tokens: Tensor) -> Tensor:
        """The latents (B, Z, t, h, w) that tokens (B, t, h, w) stand for. Raises ValueError as `decode_tokens`."""
        raise ValueError(f"{self.info.kind} has no tokens")

    def check_frames(self, frames: int) -> None:
        """Raises ValueError, with what would do, for a number of frames that the coder does not take."""
        self.info.check_frames(frames)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(Z, t, h, w) of a clip. Raises ValueError for one that the coder does not take."""
        return self.info.latent_shape(frames, height, width)

    def clips_at_once(self, frames: int, height: int, width: int) -> int | None:
        """How many clips of that shape should be encoded together at most; None: the coder knows no bound."""
        return None

    def frames_of_pieces(self, clips: int, frames: int, height: int, width: int) -> list[int]:
        """Frames of each piece in which such clips are encoded together."""
        return [frames]

    def take_smaller_pieces(self, frames: int, height: int, width: int) -> bool:
        """From now on goes through clips in pieces of half the length. False where it can't, for one of that shape."""
        return False

    @abstractmethod
    def _encode(self, pieces: Iterator[Tensor]) -> Moments:
        """Of the pieces of a video, which `frames_of_pieces` has decided."""

    @abstractmethod
    def _decode(self, latents: Tensor) -> Iterator[Tensor]: ...
