"""Masks of given tokens: kept clean, at time 0, beside others that are noised (one time per token).

With such masks one network learns to animate a picture, to continue a clip, to lead up to one, to fill between two and
to repaint (the mask strategy of Open-Sora, Zheng et al. 2024, after Tay et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor

from train.config.training import MaskKind


def known_mask(kind: MaskKind, shape: tuple[int, int, int], generator: torch.Generator | None = None) -> Tensor:
    """A random mask of that kind, bool (T, H, W), true where a token is given; `generator` is one of the CPU.

    none: nothing is given. predict, backward: the first, or the last, 1 to T / 2 latents. interpolate: 1 to T / 4 at
    both ends. single: any one latent. spatial: all but a box of at least a quarter of either side, over the whole time.

    Something is always left to generate: with too few latents for its kind, a mask gives nothing.
    """
    frames, height, width = shape
    known = torch.zeros(shape, dtype=torch.bool)

    def up_to(most: int) -> int:
        return int(torch.randint(1, max(1, most) + 1, (), generator=generator))

    if kind == "spatial":
        known[:] = True
        tall, wide = max(-(-height // 4), up_to(height)), max(-(-width // 4), up_to(width))
        top, left = up_to(height - tall + 1) - 1, up_to(width - wide + 1) - 1
        known[:, top : top + tall, left : left + wide] = False
    elif kind not in get_args(MaskKind):
        raise ValueError(f"unknown mask {kind!r}: there are {', '.join(get_args(MaskKind))}")
    elif kind == "none" or frames == 1 or (kind == "interpolate" and frames == 2):
        pass
    elif kind == "predict":
        known[: up_to(frames // 2)] = True
    elif kind == "backward":
        known[frames - up_to(frames // 2) :] = True
    elif kind == "interpolate":
        known[: up_to(frames // 4)] = True
        known[frames - up_to(frames // 4) :] = True
    else:
        known[up_to(frames) - 1] = True
    return known


def draw_masks(
    batch: int,
    shape: tuple[int, int, int],
    rates: Mapping[MaskKind, float],
    generator: torch.Generator | None = None,
    patch: int = 1,
) -> Tensor:
    """Bool (B, T, H, W); each sample's kind is drawn by `rates`, and is "none" with the probability they leave to 1.

    Masks are constant in patches of `patch` x `patch`, as the network's tokens are. Raises ValueError for rates that
    are negative or more than 1 together, and for a height or width that the patch doesn't divide.
    """
    frames, height, width = shape
    if height % patch or width % patch:
        raise ValueError(f"latents of {height} x {width} don't fall into patches of {patch} x {patch}")
    kinds = list(rates)
    if min(rates.values(), default=0) < 0 or (total := sum(rates.values())) > 1 + 1e-9:
        raise ValueError(f"mask rates {dict(rates)}: none below 0, and at most 1 together")
    weights = torch.tensor([*rates.values(), max(0.0, 1 - total)], dtype=torch.float64)
    drawn = torch.multinomial(weights, batch, replacement=True, generator=generator).tolist()
    coarse = (frames, height // patch, width // patch)
    masks = [known_mask((*kinds, "none")[index], coarse, generator) for index in drawn]
    return torch.stack(masks).repeat_interleave(patch, 2).repeat_interleave(patch, 3)


def latents_mask(shape: tuple[int, int, int], first: int = 0, last: int = 0) -> Tensor:
    """Bool (T, H, W): the `first` and the `last` latents in time are given. Image-to-video: first=1; continuing:
    first=k; interpolating: first=j, last=k. Raises ValueError where nothing would be left to generate.
    """
    frames = shape[0]
    if first < 0 or last < 0 or first + last >= frames:
        raise ValueError(f"{first} first and {last} last latents given, of {frames}: at least one must be left to make")
    known = torch.zeros(shape, dtype=torch.bool)
    known[:first] = True
    known[frames - last :] = True
    return known


def token_times(t: Tensor, known: Tensor) -> Tensor:
    """Times (B,) or () and masks (B, T, H, W) or (B, N) to times of the mask's shape: 0 where known."""
    return torch.where(known, 0, t.reshape(-1, *[1] * (known.ndim - 1)))
