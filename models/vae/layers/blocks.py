"""Encoder and decoder of the causal VAE: the 2D Stable Diffusion VAE (Rombach et al. 2022) extended to time.

Modules have the names of the 2D network's weights in diffusers where possible, so that readers of one find their way in
the other. All take and give (B, C, T, H, W): whole clips or, with a `Stream`, one chunk after another.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.settings.vae import CAUSAL, FLAT, VAESettings
from models.vae.layers.causal_ops import CausalConv3d, Downsample, FrameAttention, Stream, Upsample, make_norm

Norm = Literal["group", "rms"]

BRANCH = 0.1  # initial scale of residual branches


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input: (B, C, T, H, W) to (B, C', T, H, W)."""

    def __init__(self, channels: int, channels_out: int, taps: tuple[int, int], norm: Norm, groups: int):
        super().__init__()
        self.norm1 = make_norm(norm, channels, groups)
        self.conv1 = CausalConv3d(channels, channels_out, (taps[0], 3, 3))
        self.norm2 = make_norm(norm, channels_out, groups)
        self.conv2 = CausalConv3d(channels_out, channels_out, (taps[1], 3, 3))
        self.conv_shortcut = CausalConv3d(channels, channels_out, 1) if channels != channels_out else None

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        y = self.conv1(_silu(self.norm1(x)), stream)
        y = self.conv2(_silu(self.norm2(y)), stream)
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Middle(nn.Module):
    """Residual block, attention within each frame, residual block, at the smallest size."""

    def __init__(self, channels: int, taps: tuple[int, int], norm: Norm, groups: int):
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, taps, norm, groups) for _ in range(2))
        self.attention = FrameAttention(channels, norm, groups)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return self.resnets[1](self.attention(self.resnets[0](x, stream)), stream)


class Level(nn.Module):
    """Residual blocks of one size, then the step to the next size: a Downsample, an Upsample, or none at the end.

    With `checkpointing` the backward pass computes each of them again instead of keeping what is inside.
    """

    checkpointing = False

    def __init__(self, blocks: list[ResidualBlock], resize: Downsample | Upsample | None):
        super().__init__()
        self.resnets = nn.ModuleList(blocks)
        self.resize = resize

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in (*self.resnets, self.resize):
            if layer is None:
                continue
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, stream, use_reentrant=False)
            else:
                x = layer(x, stream)
        return x


class Encoder(nn.Module):
    """Video (B, 3, 1 + 4n, H, W) to (B, `channels_out`, 1 + n, H / 8, W / 8)."""

    def __init__(self, settings: VAESettings, channels_out: int):
        super().__init__()
        widths = [settings.width * multiplier for multiplier in settings.multipliers]
        last = len(widths) - 1
        kinds = (settings.norm, settings.groups)
        self.channels_out, self.space = channels_out, settings.space
        self.conv_in = CausalConv3d(3, settings.width, (settings.taps("encoder", 0), 3, 3))
        self.levels = nn.ModuleList()
        channels = settings.width
        for level, width in enumerate(widths):
            taps = _pair(settings, "encoder", level)
            inputs = [channels] + [width] * (settings.encoder_blocks - 1)
            blocks = [ResidualBlock(each, width, taps, *kinds) for each in inputs]
            time = last - 2 <= level < last  # the two innermost levels that halve
            down = Downsample(width, time, CAUSAL if time else taps[0]) if level < last else None
            self.levels.append(Level(blocks, down))
            channels = width
        taps = _pair(settings, "encoder", last)
        self.mid_block = Middle(channels, taps, *kinds)
        self.conv_norm_out = make_norm(settings.norm, channels, settings.groups)
        self.conv_out = CausalConv3d(channels, channels_out, (taps[1], 3, 3))

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        size = [side // self.space for side in x.shape[3:]]
        x = self.conv_in(x, stream)
        for level in self.levels:
            x = level(x, stream)
            if not x.shape[2]:  # a chunk too short for a latent
                return x.new_zeros(len(x), self.channels_out, 0, *size)
        x = self.mid_block(x, stream)
        return self.conv_out(_silu(self.conv_norm_out(x)), stream)


class Decoder(nn.Module):
    """Latents (B, `channels`, 1 + n, h, w) to video (B, 3, 1 + 4n, 8h, 8w). Its levels are in the order in which they
    run, the innermost first.
    """

    def __init__(self, settings: VAESettings, channels: int):
        super().__init__()
        widths = [settings.width * multiplier for multiplier in settings.multipliers]
        last = len(widths) - 1
        kinds = (settings.norm, settings.groups)
        taps = _pair(settings, "decoder", last)
        self.conv_in = CausalConv3d(channels, widths[last], (taps[0], 3, 3))
        self.mid_block = Middle(widths[last], taps, *kinds)
        self.levels = nn.ModuleList()
        channels = widths[last]
        for level in range(last, -1, -1):
            taps, width = _pair(settings, "decoder", level), widths[level]
            inputs = [channels] + [width] * (settings.decoder_blocks - 1)
            blocks = [ResidualBlock(each, width, taps, *kinds) for each in inputs]
            time = level >= last - 1  # the two innermost; the others of the published model are 1 x 3 x 3
            up = Upsample(width, time, taps[0] if time else FLAT) if level else None
            self.levels.append(Level(blocks, up))
            channels = width
        self.conv_norm_out = make_norm(settings.norm, channels, settings.groups)
        self.conv_out = CausalConv3d(channels, 3, (settings.taps("decoder", 0, second=True), 3, 3))

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        x = self.mid_block(self.conv_in(x, stream), stream)
        for level in self.levels:
            x = level(x, stream)
        return self.conv_out(_silu(self.conv_norm_out(x)), stream)


@torch.no_grad()
def init_vae_weights(network: nn.Module) -> None:
    """Initial weights that keep the variance of their inputs, no biases, and residual branches that add little.

    torch's own initialisation shrinks a signal by 3 per layer and adds biases as large: at the debug size, 160 steps on
    drawn shapes then reached 13.0 dB, below the mean colour of each image; with this one, 18.2.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, CausalConv3d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            if name.endswith((".conv2", ".to_out")):
                layer.weight.mul_(BRANCH)


def _pair(settings: VAESettings, part: Literal["encoder", "decoder"], level: int) -> tuple[int, int]:
    """Kernel sizes in time of the two convolutions of a residual block."""
    return settings.taps(part, level), settings.taps(part, level, second=True)


def _silu(x: Tensor) -> Tensor:
    """SiLU of a norm's output, which is used nowhere else: in place where no gradient is needed."""
    return F.silu(x, inplace=not torch.is_grad_enabled())
