"""A linear shortcut around the causal VAE's networks: patches of 4 frames to latents and back, initialised as a cosine
transform.

The networks then learn what a linear code can't do, instead of spending their first thousands of steps on passing
colours and positions through. After the residual autoencoding of DC-AE (Chen et al. 2024), here in one step between
pixels and latents and with learned weights; the initial transform is JPEG's, in time too.
"""

from __future__ import annotations

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from models.settings.vae import STRIDE
from models.vae.layers.causal_ops import CausalConv3d, Stream

COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))  # brightness and two colour differences, orthogonal
PLAIN, DETAIL = 2.0, 4.0  # gains of the latents of means and of waves, which make them about equally large


class PatchesIn(CausalConv3d):
    """Video (B, 3, 1 + 4n, H, W) to (B, `channels`, 1 + n, H / side, W / side): a linear map of each patch of 4 x side
    x side pixels. The clip's first frame counts as a patch of four such frames.
    """

    def __init__(self, channels: int, side: int):
        super().__init__(3, channels, (STRIDE, side, side), (STRIDE, side, side), pad="none")

    def _in_2d(self, x: Tensor, outputs: int) -> Tensor:
        """A matrix product, as no patch overlaps another. (In bfloat16 on CPUs with AMX, oneDNN 3.11 gives wrong
        numbers for convolutions of 8 x 8 with a stride of 8 and 12 channels.)
        """
        side = self.kernel_size[1]
        x = x[:, :, : outputs * STRIDE].unflatten(4, (-1, side)).unflatten(3, (-1, side)).unflatten(2, (-1, STRIDE))
        patches = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)  # (B, 1 + n, h, w, 3 * 4 * side * side)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)

    @torch.no_grad()
    def init_as_cosine_transform(self) -> None:
        """Sets the weights to the slowest waves of the cosine transform."""
        waves, gains = _waves(self.out_channels, self.kernel_size[1])
        self.weight.copy_(waves * gains)
        if self.bias is not None:
            self.bias.zero_()


class PatchesOut(CausalConv3d):
    """Latents (B, `channels`, 1 + n, h, w) to video (B, 3, 1 + 4n, side h, side w): each patch is a linear map of its
    latent and the eight around it. Of the first latent's patches only the last frame is used.
    """

    def __init__(self, channels: int, side: int):
        super().__init__(channels, STRIDE * 3 * side * side, (1, 3, 3))
        self.side = side

    def forward(self, latents: Tensor, stream: Stream | None = None) -> Tensor:
        b, _, t, h, w = latents.shape
        if not t:
            return latents.new_zeros(b, 3, 0, h * self.side, w * self.side)
        patches = super().forward(latents).transpose(1, 2).flatten(0, 1)  # (B T, 4 * 3 * side * side, h, w)
        frames = F.pixel_shuffle(patches, self.side).reshape(b, t * STRIDE, 3, h * self.side, w * self.side)
        started = stream is not None and stream.take(self) is not None
        if stream is not None:
            stream.keep(self, latents[:, :, :0])  # marks that the clip has begun; no latent is needed later
        return frames.transpose(1, 2)[:, :, 0 if started else STRIDE - 1 :]

    @torch.no_grad()
    def init_as_cosine_transform(self) -> None:
        """Sets the weights to the inverse transform, of each latent by itself."""
        waves, gains = _waves(self.in_channels, self.side)
        self.weight.zero_()
        self.weight[:, :, 0, 1, 1] = (waves / gains).permute(2, 1, 3, 4, 0).flatten(0, 3)
        if self.bias is not None:
            self.bias.zero_()


def _waves(count: int, side: int) -> tuple[Tensor, Tensor]:
    """The slowest waves of patches of video, (count, 3, 4, side, side), orthogonal and of length 1; and their gains,
    which they are multiplied with to give latents, (count, 1, 1, 1, 1).
    """
    numbers = product(range(3), range(STRIDE), range(side), range(side))
    # A changing colour counts one more: colours of pictures change less than brightness.
    order = sorted(numbers, key=lambda n: (sum(n[1:]) + bool(n[0] and sum(n[1:])), n[0] == 0, n))[:count]
    colours = F.normalize(torch.tensor(COLOURS), dim=1)
    waves = [
        torch.einsum("c,t,y,x->ctyx", colours[c], _cosine(STRIDE, t), _cosine(side, y), _cosine(side, x))
        for c, t, y, x in order
    ]
    gains = torch.tensor([DETAIL if any(number[1:]) else PLAIN for number in order])
    return torch.stack(waves), (gains / math.sqrt(STRIDE * side * side)).view(-1, 1, 1, 1, 1)


def _cosine(size: int, number: int) -> Tensor:
    """(size,), of length 1."""
    return F.normalize(torch.cos(math.pi * (torch.arange(size) + 0.5) * number / size), dim=0)
