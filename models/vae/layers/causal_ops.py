"""Layers of a causal 3D network: convolutions that see no later frame, norms and attention within a frame.

Every layer takes (B, C, T, H, W): a whole clip, or one chunk after another with a `Stream`. It then keeps the few
earlier frames that it needs, so that chunks of any length give the same result as the whole clip, with memory that does
not grow with its length. Activations in `torch.channels_last_3d` stay so and are fastest: folding frames into the batch
is then a view.

Source: OD-VAE (Chen et al. 2024), after the causal convolutions of MAGVIT-v2 (Yu et al. 2024).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.settings.vae import STRIDE


def latent_count(frames: int, stride: int = STRIDE) -> int:
    """Number of latents of 1 + 4n frames: 1 + n. Raises ValueError for any other number of frames."""
    if frames < 1 or (frames - 1) % stride:
        below = max(1, frames - (frames - 1) % stride)
        near = f"{below}" if frames < 1 else f"{below} or {below + stride}"
        raise ValueError(f"a clip of {frames} frames: the VAE takes 1 + {stride}n, {near} would do")
    return 1 + (frames - 1) // stride


def frame_count(latents: int, stride: int = STRIDE) -> int:
    """Number of frames of 1 + n latents: 1 + 4n. Raises ValueError for less than one."""
    if latents < 1:
        raise ValueError(f"{latents} latents: a clip has one at least")
    return 1 + (latents - 1) * stride


class Stream:
    """What the layers of a network keep between the chunks of one clip. Every clip needs a new Stream."""

    def __init__(self) -> None:
        self._kept: dict[nn.Module, Tensor] = {}

    def take(self, layer: nn.Module) -> Tensor | None:
        """What the layer kept from earlier chunks; None at the start of the clip."""
        return self._kept.get(layer)

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        # A copy, as a view would keep the whole chunk in memory.
        self._kept[layer] = frames.detach().clone()

    @property
    def frames(self) -> int:
        """Number of frames kept by all layers together."""
        return sum(kept.shape[2] for kept in self._kept.values())


class CausalConv3d(nn.Conv3d):
    """Convolution whose output t sees inputs up to t * stride only: before the clip its first frame is repeated k_t - 1
    times, after it there is no padding. In space, zeros pad all sides ("around"), only the bottom and the right
    ("after", as in the 2D Stable Diffusion VAE where it halves the size), or nothing ("none").

    (B, C, T, H, W) to (B, C', (T - 1) // stride + 1, H', W'). A chunk too short for an output gives T = 0.
    """

    def __init__(
        self,
        channels: int,
        channels_out: int,
        kernel: int | tuple[int, int, int] = 3,
        stride: int | tuple[int, int, int] = 1,
        pad: Literal["around", "after", "none"] = "around",
    ):
        kernel = (kernel,) * 3 if isinstance(kernel, int) else kernel
        stride = (stride,) * 3 if isinstance(stride, int) else stride
        if stride[0] > kernel[0]:
            raise ValueError(f"a stride of {stride[0]} in time leaves out frames between kernels of {kernel[0]}")
        around = (0, kernel[1] // 2, kernel[2] // 2) if pad == "around" else (0, 0, 0)
        super().__init__(channels, channels_out, kernel, stride, around)
        self.around = around
        # As F.pad takes it: left, right, top, bottom.
        self.after = (0, kernel[2] - 1, 0, kernel[1] - 1) if pad == "after" else None

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        back, step = self.kernel_size[0], self.stride[0]
        if back > 1:
            before = stream.take(self) if stream is not None else None
            if before is None and x.shape[2]:
                before = x[:, :, :1]
                x = torch.cat([before] * (back - 1) + [x], dim=2)
            elif before is not None and before.shape[2]:
                x = torch.cat([before, x], dim=2)
        outputs = max(0, (x.shape[2] - back) // step + 1)
        if stream is not None and back > 1 and x.shape[2]:
            stream.keep(self, x[:, :, outputs * step :])
        if not outputs:
            return x.new_zeros(len(x), self.out_channels, 0, *self._size(x.shape[3:]))
        x = F.pad(x, self.after) if self.after else x
        return super().forward(x) if back > 1 and x.device.type != "cpu" else self._in_2d(x, outputs)

    def _in_2d(self, x: Tensor, outputs: int) -> Tensor:
        """The same as a 2D convolution, with the frames that an output sees stacked along the channels. (On CPUs
        torch's 3D convolutions took 15 to 50 times as long at 16 to 32 channels, and as long at 128.)
        """
        back, step = self.kernel_size[0], self.stride[0]
        seen = [x[:, :, tap : tap + (outputs - 1) * step + 1 : step] for tap in range(back)]
        x = seen[0] if back == 1 else torch.cat(seen, dim=1)
        weight = self.weight.transpose(1, 2).flatten(1, 2)  # (C', k_t * C, k_h, k_w)
        images = x.transpose(1, 2).flatten(0, 1)
        return _clips(F.conv2d(images, weight, self.bias, self.stride[1:], self.around[1:]), len(x))

    def _size(self, size: tuple[int, ...]) -> list[int]:
        """Height and width of the output for inputs of this height and width."""
        kernel, stride, around = self.kernel_size[1:], self.stride[1:], self.around[1:]
        added = [k - 1 if self.after else 2 * p for k, p in zip(kernel, around, strict=True)]
        return [(n + a - k) // s + 1 for n, a, k, s in zip(size, added, kernel, stride, strict=True)]

    @torch.no_grad()
    def load_2d_kernel(self, weight: Tensor, bias: Tensor | None, how: Literal["tail", "average"] = "tail") -> None:
        """Takes over a 2D convolution, weight (C', C, k_h, k_w): `tail` puts it on the newest frame, so that each
        output depends on its own frame only; `average` spreads it evenly over the frames. Raises ValueError if it does
        not fit.
        """
        fits = (self.out_channels, self.in_channels, *self.kernel_size[1:])
        if tuple(weight.shape) != fits:
            raise ValueError(f"a 2D kernel of {tuple(weight.shape)} does not fit a convolution that takes {fits}")
        if how == "tail":
            self.weight.zero_()
            self.weight[:, :, -1] = weight
        elif how == "average":
            self.weight.copy_(weight[:, :, None].expand_as(self.weight) / self.kernel_size[0])
        else:
            raise ValueError(f"unknown initialisation {how!r}: tail or average")
        if self.bias is not None:
            self.bias.copy_(torch.zeros_like(self.bias) if bias is None else bias)


class Downsample(nn.Module):
    """Halves height and width, and with `time` the frames after the first: (B, C, 1 + 2n, H, W) to (B, C, 1 + n, H / 2,
    W / 2), by a strided convolution whose kernel size in time is `taps`.
    """

    def __init__(self, channels: int, time: bool, taps: int = 3):
        super().__init__()
        self.conv = CausalConv3d(channels, channels, (taps, 3, 3), (2 if time else 1, 2, 2), pad="after")

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return self.conv(x, stream)


class Upsample(nn.Module):
    """Doubles height and width, and with `time` every frame but the clip's first, then convolves: (B, C, 1 + n, H, W)
    to (B, C, 1 + 2n, 2H, 2W). `taps` is the convolution's kernel size in time.
    """

    def __init__(self, channels: int, time: bool, taps: int = 3):
        super().__init__()
        self.time = time
        self.conv = CausalConv3d(channels, channels, (taps, 3, 3))

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if self.time and x.shape[2]:
            started = stream is not None and stream.take(self) is not None
            if started:
                x = _frames_twice(x)
            elif x.shape[2] > 1:
                x = torch.cat([x[:, :, :1], _frames_twice(x[:, :, 1:])], dim=2)
            if stream is not None and not started:
                stream.keep(self, x[:, :, :0])  # marks that the clip has begun; no frame is needed later
        return self.conv(_twice_as_large(x), stream)


class FrameGroupNorm(nn.GroupNorm):
    """GroupNorm of each frame by itself. (Over T, H, W, later frames would influence earlier ones.)"""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return self.in_channels_last(x)
        b, c, t, h, w = x.shape
        frames = x.transpose(1, 2).reshape(b * t, c, h, w)
        # Not F.group_norm, which refuses a frame of a single pixel even if a group has many channels.
        return _clips(torch.group_norm(frames, self.num_groups, self.weight, self.bias, self.eps), b)

    def in_channels_last(self, x: Tensor) -> Tensor:
        """The same out of operations that leave `x` in channels_last_3d, in its dtype, from float32 moments. (CUDA's
        group norm gives a contiguous tensor, so that each convolution after it would transpose; on a CPU, where it
        keeps the layout, it is 6 to 20 times as fast as this.)
        """
        b, c, t, h, w = x.shape
        groups = x.permute(0, 2, 3, 4, 1).reshape(b * t, h * w, self.num_groups, -1)  # a view
        if x.dtype in (torch.float16, torch.bfloat16):  # without a copy in float32
            mean = groups.mean((1, 3), keepdim=True, dtype=torch.float32)
            length = torch.linalg.vector_norm(groups, dim=(1, 3), keepdim=True, dtype=torch.float32)
            var = (length.square() / groups[0, :, 0].numel() - mean.square()).clamp(min=0)
        else:
            var, mean = torch.var_mean(groups, (1, 3), correction=0, keepdim=True)
        scale = torch.rsqrt(var + self.eps) * self.weight.view(self.num_groups, -1)
        normed = torch.addcmul(self.bias.view(self.num_groups, -1) - mean * scale, groups, scale)
        return normed.to(x.dtype).view(b, t, h, w, c).permute(0, 4, 1, 2, 3)


class PixelRMSNorm(nn.Module):
    """RMS norm over the channels of each pixel, with a gain, as in Wan's VAE."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + self.eps)
        return (x * scale).to(x.dtype) * self.weight.to(x.dtype).view(-1, 1, 1, 1)


def make_norm(kind: Literal["group", "rms"], channels: int, groups: int = 32) -> nn.Module:
    """A norm that does not mix frames. `groups` that do not divide the channels become the largest number that does."""
    if kind == "rms":
        return PixelRMSNorm(channels)
    if kind != "group":
        raise ValueError(f"unknown norm {kind!r}: group or rms")
    divisor = next(count for count in range(min(groups, channels), 0, -1) if channels % count == 0)
    return FrameGroupNorm(divisor, channels, eps=1e-6)


class FrameAttention(nn.Module):
    """Attention among the pixels of each frame, one head, added to its input: (B, C, T, H, W) to the same shape."""

    def __init__(self, channels: int, norm: Literal["group", "rms"] = "group", groups: int = 32):
        super().__init__()
        self.norm = make_norm(norm, channels, groups)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        # Permute first, then reshape: reshaping first would mix frames and channels, which shows only at T > 1.
        tokens = self.norm(x).permute(0, 2, 3, 4, 1).reshape(b * t, 1, h * w, c)
        mixed = F.scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + self.to_out(mixed).view(b, t, h, w, c).permute(0, 4, 1, 2, 3)


def _clips(images: Tensor, count: int) -> Tensor:
    """(B T, C, H, W) to (B, C, T, H, W) of B = `count` clips, a view."""
    if len(images) == count:  # the stride of a view's single frame could be of either memory format, and mislead `cat`
        return images.unsqueeze(2)
    return images.unflatten(0, (count, len(images) // count)).transpose(1, 2)


def _frames_twice(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B, C, 2T, H, W). (`repeat_interleave` would give a contiguous tensor.)"""
    b, c, t, h, w = x.shape
    frames = x.permute(0, 2, 3, 4, 1)[:, :, None].expand(b, t, 2, h, w, c)
    return frames.reshape(b, 2 * t, h, w, c).contiguous().permute(0, 4, 1, 2, 3)


def _twice_as_large(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B, C, T, 2H, 2W), each pixel four times. As pictures: of five dimensions, CUDA's
    interpolation copies channels-last tensors.
    """
    b, c, t, h, w = x.shape
    if not t:
        return x.new_zeros(b, c, t, 2 * h, 2 * w)
    return _clips(F.interpolate(x.transpose(1, 2).flatten(0, 1), scale_factor=2.0, mode="nearest"), b)
