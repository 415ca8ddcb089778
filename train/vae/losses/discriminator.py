"""A discriminator of originals and reconstructions, patch by patch: PatchGAN (Isola et al. 2017) in space and time,
with hinge losses (Lim and Ye 2017), as is usual for VAEs of video.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.vae.layers.causal_ops import CausalConv3d, make_norm


class PatchDiscriminator(nn.Module):
    """Video (B, 3, T, H, W), T = 1 too, to a score for each patch, (B, 1, T', H', W'): high for what looks original.

    Norms are of each frame, not of a batch, so that images, videos, originals and reconstructions do not influence each
    other. Convolutions see three frames and are causal, so that an image is a video of one frame.
    """

    def __init__(self, width: int = 64, layers: int = 3):
        super().__init__()
        self.conv_in = CausalConv3d(3, width, (3, 4, 4), (1, 2, 2))
        blocks, channels = [], width
        for layer in range(1, layers + 1):
            last = layer == layers
            wider = width * min(2**layer, 8)
            stride = (1, 1, 1) if last else (2, 2, 2)
            blocks += [
                CausalConv3d(channels, wider, (3, 4, 4), stride),
                make_norm("group", wider),
                nn.LeakyReLU(0.2),
            ]
            channels = wider
        self.blocks = nn.Sequential(*blocks)
        self.conv_out = CausalConv3d(channels, 1, (3, 4, 4))
        for module in self.modules():
            if isinstance(module, CausalConv3d) and module.bias is not None:
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, video: Tensor) -> Tensor:
        return self.conv_out(self.blocks(F.leaky_relu(self.conv_in(video), 0.2)))


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss: scores of originals should be above 1, those of reconstructions below -1."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """The adversarial loss of the VAE: the negated scores of its reconstructions."""
    return -fake.mean()


def adaptive_weight(rest: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The weight that makes the adversarial term as strong as the rest: the ratio of the norms of their gradients at
    the decoder's last weights (VQGAN, Esser et al. 2021), at most 10^4. A scalar without gradient.
    """
    (there,) = torch.autograd.grad(rest, last, retain_graph=True)
    (here,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (there.norm() / (here.norm() + 1e-4)).clamp(0, 1e4).detach()
