"""The training loss of a VAE: pixels, perceptual term, quantizer's loss, adversarial term.

Each term is a mean over elements or patches, so that its strength depends neither on a clip's length nor on its size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.vae.layers.quantizers import Quantized
from train.config.vae import LossConfig
from train.vae.losses.discriminator import PatchDiscriminator, adaptive_weight, generator_loss
from train.vae.losses.perceptual import gradient_loss, load_lpips

PairDistance = Callable[[Tensor, Tensor], Tensor]  # of pictures, (N, 3, H, W) twice to (N,)


def perceptual_term(config: LossConfig, device: torch.device) -> tuple[PairDistance | None, str]:
    """The perceptual term and its name in words. Raises ValueError for weights that can't be used."""
    if config.perceptual == "lpips" and config.lpips is not None and config.backbone is not None:
        lpips = load_lpips(config.lpips, config.backbone).to(device)
        return lpips, f"LPIPS ({lpips.name})"
    if config.perceptual == "gradients":
        return gradient_loss, "gradients at three scales, no LPIPS (loss.lpips names no weights)"
    return None, "none"


class VAELosses:
    """The weighted sum of the VAE's losses, and each of them for the log."""

    def __init__(self, config: LossConfig, discrete: bool, perceptual: PairDistance | None):
        self.config, self.discrete, self.perceptual = config, discrete, perceptual

    def __call__(
        self,
        video: Tensor,
        back: Tensor,
        quantized: Quantized,
        last: Tensor,
        discriminator: PatchDiscriminator | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Originals and reconstructions (B, 3, T, H, W), the quantized latents, the decoder's last weights; the
        discriminator once it takes part. Returns a scalar, and each term without its weight.
        """
        total, terms = self.terms(video, back, quantized, last, discriminator)
        numbers = torch.stack([term.detach().float() for term in terms.values()]).tolist()  # one wait for a GPU
        return total, dict(zip(terms, numbers, strict=True))

    def terms(
        self,
        video: Tensor,
        back: Tensor,
        quantized: Quantized,
        last: Tensor,
        discriminator: PatchDiscriminator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same with the terms as scalars on the device."""
        config, video, back = self.config, video.float(), back.float()
        difference = back - video
        pixels = difference.abs().mean() if config.pixels == "l1" else difference.square().mean()
        terms: dict[str, Tensor] = {config.pixels: pixels}
        total = pixels
        if self.perceptual is not None and config.perceptual_weight:
            looks = self.perceptual(frames(back), frames(video)).mean()
            terms["perceptual"] = looks
            total = total + config.perceptual_weight * looks
        if discriminator is not None:
            adversarial = generator_loss(discriminator(back))
            ratio = adaptive_weight(total, adversarial, last)
            terms |= {"adversarial": adversarial, "adversarial_ratio": ratio}
            total = total + config.adversarial * ratio * adversarial
        terms["codebook" if self.discrete else "kl"] = quantized.loss
        total = total + (config.codebook if self.discrete else config.kl) * quantized.loss
        return total, terms


def frames(video: Tensor) -> Tensor:
    """(B, 3, T, H, W) to (B T, 3, H, W)."""
    return video.transpose(1, 2).flatten(0, 1)
