"""The causal 3D VAE: 1 + 4n frames to 1 + n latents and back, 8x smaller in height and width.

Source: OD-VAE (Chen et al. 2024), with norms of each frame by itself, so that no latent depends on later frames, and
with any of the quantizers in models/vae/layers/quantizers.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.settings.vae import STRIDE, VAESettings
from models.vae.layers.blocks import BRANCH, Decoder, Encoder, init_vae_weights
from models.vae.layers.causal_ops import CausalConv3d, Stream, latent_count
from models.vae.layers.quantizers import GaussianKL, Quantized, Quantizer, make_quantizer
from models.vae.layers.shortcut import PatchesIn, PatchesOut
from models.vae.temporal_tiling import decode_tiled, encode_tiled

LOGVAR_START = -6.0  # initial noise of 0.05: a logvar of 0 means noise of 1, which hides means not yet learned


@dataclass
class Encoded:
    """`mean` (B, Z, T, h, w) float32 is what the decoder takes. Beside it stands a Gaussian's `logvar` of the same
    shape, or `tokens` (B, T, h, w) int64, which stand for the mean exactly.
    """

    mean: Tensor
    logvar: Tensor | None = None
    tokens: Tensor | None = None

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A sample of the Gaussian; the mean where there is none."""
        if self.logvar is None:
            return self.mean
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.mean + (0.5 * self.logvar).exp() * noise


class CausalVAE(nn.Module):
    """Video is (B, 3, 1 + 4n, H, W) in [-1, 1], an image a video of one frame; H and W are multiples of 8.

    `encode` and `decode` take a whole clip at once. With `chunk` (frames, or latents) they go through it in chunks: the
    same result, with memory for one chunk. With `group` (frames of video) they tile it as published, at a small loss.
    `forward` is for training.
    """

    frames_per_latent = STRIDE

    def __init__(self, settings: VAESettings):
        super().__init__()
        self.settings = settings
        self.quantizer: Quantizer = make_quantizer(settings.quantizer, settings.channels, **settings.quantizer_options)
        features = self.quantizer.features
        self.encoder = Encoder(settings, features)
        self.quant_conv = CausalConv3d(features, features, 1)
        self.post_quant_conv = CausalConv3d(settings.channels, settings.channels, 1)
        self.decoder = Decoder(settings, settings.channels)
        self.shortcut_in = PatchesIn(settings.channels, settings.space) if settings.shortcut else None
        self.shortcut_out = PatchesOut(settings.channels, settings.space) if settings.shortcut else None
        init_vae_weights(self)
        if self.shortcut_in is not None and self.shortcut_out is not None:
            self._init_shortcut(self.shortcut_in, self.shortcut_out)
        if isinstance(self.quantizer, GaussianKL) and self.quant_conv.bias is not None:
            nn.init.constant_(self.quant_conv.bias[settings.channels :], LOGVAR_START)

    def forward(self, video: Tensor) -> tuple[Tensor, Quantized]:
        """The reconstruction, shaped like the video, and the quantized latents: in training a sample of the Gaussian,
        or codes of a codebook that learns.
        """
        self.check(video)
        quantized = self.quantizer(self._features(video))
        return self._video(quantized.latent), quantized

    def encode(self, video: Tensor, *, chunk: int | None = None, group: int | None = None) -> Encoded:
        """Raises ValueError for a video of another shape than 1 + 4n frames of 8h x 8w pixels."""
        self.check(video)
        _check_one_of(chunk, group)
        if chunk:
            stream = Stream()
            features = torch.cat([self._features(part, stream) for part in video.split(chunk, dim=2)], dim=2)
        elif group:
            features = encode_tiled(self._features, video, group)
        else:
            features = self._features(video)
        return self._encoded(features)

    def decode(self, latents: Tensor, *, chunk: int | None = None, group: int | None = None) -> Tensor:
        """Latents (B, Z, 1 + n, h, w) to video in the weights' dtype, about [-1, 1] and not clamped."""
        self._check_latents(latents)
        _check_one_of(chunk, group)
        if chunk:
            stream = Stream()
            return torch.cat([self._video(part, stream) for part in latents.split(chunk, dim=2)], dim=2)
        if group:
            return decode_tiled(self._video, latents, group)
        return self._video(latents)

    def decode_tokens(self, tokens: Tensor, *, chunk: int | None = None, group: int | None = None) -> Tensor:
        """Tokens (B, 1 + n, h, w) to video. Raises ValueError where the quantizer has no tokens, or not these."""
        return self.decode(self.quantizer.latent_of(tokens), chunk=chunk, group=group)

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Encoded]:
        """Encodes one clip in chunks of any number of frames, and yields latents as they become complete.

        Raises ValueError at the end of a clip that was not 1 + 4n frames: its last frames are then in no latent.
        """
        stream, frames = Stream(), 0
        for chunk in chunks:
            self._check_pixels(chunk)
            frames += chunk.shape[2]
            features = self._features(chunk, stream)
            if features.shape[2]:
                yield self._encoded(features)
        latent_count(frames)

    def decode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decodes one clip's latents in chunks of any number of them, and yields one piece of video for each."""
        stream = Stream()
        for chunk in chunks:
            self._check_latents(chunk)
            yield self._video(chunk, stream)

    def set_checkpointing(self, on: bool) -> None:
        """Whether the backward pass computes the layers of each level again instead of keeping their activations."""
        for level in (*self.encoder.levels, *self.decoder.levels):
            level.checkpointing = on

    def check(self, video: Tensor) -> None:
        """Raises ValueError, with the nearest valid size, for a video that this network does not take."""
        self._check_pixels(video)
        latent_count(video.shape[2])

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(Z, T, h, w) of a clip of that size."""
        space = self.settings.space
        return self.settings.channels, latent_count(frames), height // space, width // space

    @property
    def dtype(self) -> torch.dtype:
        return self.quant_conv.weight.dtype

    def _features(self, video: Tensor, stream: Stream | None = None) -> Tensor:
        x = video.to(self.dtype).contiguous(memory_format=torch.channels_last_3d)
        features = self.quant_conv(self.encoder(x, stream))
        if self.shortcut_in is None:
            return features
        mean, rest = features.split([self.settings.channels, features.shape[1] - self.settings.channels], dim=1)
        return torch.cat([mean + self.shortcut_in(x, stream), rest], dim=1)

    def _video(self, latents: Tensor, stream: Stream | None = None) -> Tensor:
        x = latents.to(self.dtype).contiguous(memory_format=torch.channels_last_3d)
        video = self.decoder(self.post_quant_conv(x), stream)
        return video if self.shortcut_out is None else video + self.shortcut_out(x, stream)

    @torch.no_grad()
    def _init_shortcut(self, shortcut_in: PatchesIn, shortcut_out: PatchesOut) -> None:
        """At first the networks add little to the shortcut."""
        shortcut_in.init_as_cosine_transform()
        shortcut_out.init_as_cosine_transform()
        self.encoder.conv_out.weight.mul_(BRANCH)
        self.decoder.conv_out.weight.mul_(BRANCH)

    def _encoded(self, features: Tensor) -> Encoded:
        if isinstance(self.quantizer, GaussianKL):
            return Encoded(*self.quantizer.moments(features))
        with _not_learning(self.quantizer):
            found = self.quantizer(features.float())
        return Encoded(found.latent, tokens=found.tokens)

    def _check_pixels(self, video: Tensor) -> None:
        if video.ndim != 5 or video.shape[1] != 3:
            raise ValueError(f"a video of shape {tuple(video.shape)}: the VAE takes (B, 3, frames, height, width)")
        if not video.is_floating_point():
            raise ValueError(f"a video of {video.dtype}: the VAE takes floats in [-1, 1]")
        space = self.settings.space
        if any(side < space or side % space for side in video.shape[3:]):
            height, width = video.shape[3:]
            raise ValueError(f"a video of {width} x {height}: the VAE takes multiples of {space}")

    def _check_latents(self, latents: Tensor) -> None:
        if latents.ndim != 5 or latents.shape[1] != self.settings.channels or not latents.shape[2]:
            found, takes = tuple(latents.shape), self.settings.channels
            raise ValueError(f"latents of shape {found}: the VAE takes (B, {takes}, 1 + n, height, width)")


@contextmanager
def _not_learning(quantizer: Quantizer) -> Iterator[None]:
    """Encoding leaves a codebook as it is; in training mode it would follow its inputs."""
    training = quantizer.training
    quantizer.eval()
    try:
        yield
    finally:
        quantizer.train(training)


def _check_one_of(chunk: int | None, group: int | None) -> None:
    if chunk is not None and group is not None:
        raise ValueError("chunk (the same result piece by piece) or group (published tiling), not both")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunks of {chunk}: one is the least")
