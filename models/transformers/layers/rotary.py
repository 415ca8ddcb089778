"""Positions along frames, height and width: rotary embeddings (RoPE, Su et al. 2021), with a share of each head per
axis, by which attention sees how far apart tokens are, and position features, by which a token knows where it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WAVES = 5  # along each axis
POSITION_FEATURES = 3 * 2 * WAVES


def axis_pairs(head: int) -> tuple[int, int, int]:
    """How many of the head / 2 pairs of channels turn by frame, by row and by column.

    Raises ValueError for a head that can't be divided so.
    """
    pairs = head // 2
    if head % 2 or pairs < 3:
        raise ValueError(
            f"heads of {head} channels: an even number from 6 on, a pair for each of frame, row and column"
        )
    space = round(pairs / 3)
    return pairs - 2 * space, space, space


def rotary_angles(
    grid: tuple[int, int, int], head: int, device: torch.device | str | None = None, base: float = 10_000.0
) -> Tensor:
    """(2, T, H, W, head / 2) float32: cosine and sine of the angles at each place of a grid (T, H, W).

    Places count from 0 along each axis, and attention depends only on how far apart two are: there is no table of a
    fixed size, so any length and resolution that fits in memory works.
    """
    parts = []
    for axis, (length, pairs) in enumerate(zip(grid, axis_pairs(head), strict=True)):
        speeds = base ** (-torch.arange(pairs, dtype=torch.float64, device=device) / pairs)
        angles = torch.arange(length, dtype=torch.float64, device=device)[:, None] * speeds  # (length, pairs)
        shape = [1, 1, 1, pairs]
        shape[axis] = length
        parts.append(angles.view(shape).expand(*grid, pairs))
    angles = torch.cat(parts, dim=-1)
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Queries or keys (..., heads, head) with each pair of channels (i, i + head / 2) rotated by its angle, in their
    dtype; `angles` (2, ..., head / 2), as `rotary_angles` gives them, broadcast over the heads.
    """
    cosine, sine = angles.unsqueeze(-2).unbind(0)
    one, two = x.float().chunk(2, dim=-1)
    return torch.cat([one * cosine - two * sine, two * cosine + one * sine], dim=-1).to(x.dtype)


def position_features(grid: tuple[int, int, int], device: torch.device | str | None = None) -> Tensor:
    """(T, H, W, POSITION_FEATURES) float32: sines and cosines of each token's absolute position.

    Rows and columns count from -1 at one edge of the picture to 1 at the other, whatever its resolution, in waves of 4
    to 1/4; frames count from 0, in waves of 4 to 64. Without them a network learns only slowly, from the edges, where
    in the picture a token is.
    """
    parts = []
    for axis, length in enumerate(grid):
        place = torch.arange(length, dtype=torch.float64, device=device)
        steps = torch.arange(WAVES, dtype=torch.float64, device=device)
        waves = 2.0**-steps if axis == 0 else 2.0**steps
        place = place if axis == 0 else (2 * place + 1) / length - 1
        angles = math.pi / 2 * place[:, None] * waves  # (length, WAVES)
        shape = [1, 1, 1, 2 * WAVES]
        shape[axis] = length
        parts.append(torch.cat([angles.sin(), angles.cos()], dim=1).view(shape).expand(*grid, -1))
    return torch.cat(parts, dim=-1).float()
