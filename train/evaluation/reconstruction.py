"""PSNR and SSIM: how close a reconstruction is to its original, frame by frame, after their published definitions.

Pixels are (..., C, H, W) in [-1, 1], a range of 2; values outside are clamped, as a display would. Both give one number
per frame, (...), to be averaged over a clip's frames and then over clips.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MOST = 100.0  # dB; two identical frames have no finite PSNR
RANGE = 2.0
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """10 log10(range^2 / mean squared error) of each frame over all its colours and pixels, in dB."""
    error = (_shown(one) - _shown(other)).square().mean(dim=(-3, -2, -1))
    return (10 * torch.log10(RANGE**2 / error)).clamp(max=MOST)


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of each frame (Wang et al. 2004): Gaussian windows of 11 x 11 pixels with a standard
    deviation of 1.5, those fully inside the frame; the mean over windows and colours. Raises ValueError for frames
    smaller than a window.
    """
    one, other = _shown(one), _shown(other)
    if min(one.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM is of windows of {WINDOW} x {WINDOW} pixels: frames of {tuple(one.shape[-2:])}")
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    mean_1, mean_2 = _smooth(one), _smooth(other)
    variance_1 = _smooth(one * one) - mean_1 * mean_1
    variance_2 = _smooth(other * other) - mean_2 * mean_2
    covariance = _smooth(one * other) - mean_1 * mean_2
    light = (2 * mean_1 * mean_2 + c1) / (mean_1 * mean_1 + mean_2 * mean_2 + c1)
    structure = (2 * covariance + c2) / (variance_1 + variance_2 + c2)
    return (light * structure).mean(dim=(-3, -2, -1)).float()


def mean_colour(video: Tensor) -> Tensor:
    """(B, C, T, H, W) with each clip replaced by its mean colour over all pixels and frames: the result of a code of
    one colour per clip.
    """
    return video.mean(dim=(2, 3, 4), keepdim=True).expand_as(video)


def _shown(pixels: Tensor) -> Tensor:
    return pixels.double().clamp(-1, 1)


def _smooth(pixels: Tensor) -> Tensor:
    """(..., H, W) to its local means, (..., H - 10, W - 10)."""
    places = torch.arange(WINDOW, dtype=pixels.dtype, device=pixels.device) - WINDOW // 2
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    planes = pixels.reshape(-1, 1, *pixels.shape[-2:])
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return planes.view(*pixels.shape[:-2], *planes.shape[-2:])
