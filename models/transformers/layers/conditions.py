"""Embeddings of what conditions a network: times, text and numbers, as vectors of its width."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.settings.transformers import BlockSettings

EPSILON = 1e-6
ALIGNED = 64  # on a GPU, texts are padded to a multiple: kernels of attention are fast for those, and shapes are few
TIME_FEATURES = 256  # sines and cosines of each time
CONDITION_FEATURES = 32  # sines and cosines of each condition; periods from 1/2 to 64 standard deviations
FARTHEST = 16.0  # standard deviations; values beyond are clamped to it


class RMSNorm(nn.RMSNorm):
    """RMS norm with its weight in the dtype of its input, as one kernel needs it; sums are in float32 all the same."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class TimeEmbedding(nn.Module):
    """Times in [0, 1], of any shape, to (..., D): sines and cosines of 1,000 t, then two layers (as in DiT)."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        places = torch.arange(TIME_FEATURES // 2, dtype=torch.float32, device=t.device)
        angles = 1000 * t.float().unsqueeze(-1) * torch.exp(-math.log(10_000) * 2 / TIME_FEATURES * places)
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=-1).to(next(self.parameters()).dtype))


class TextEmbedding(nn.Module):
    """Text (B, L, `text_dim`) with its mask (B, L) to (B, 1 + L, D) with its mask, and one pooled vector (B, D).

    A learned token stands before the text, so that an empty or masked text still gives something to attend to. On a
    GPU, 1 + L is padded to a multiple of `ALIGNED` by masked tokens.
    """

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.dim = dim
        self.norm = RMSNorm(dim)  # text encoders differ much in the size of their outputs
        self.layers = nn.Sequential(nn.Linear(dim, width), nn.GELU(approximate="tanh"), nn.Linear(width, width))
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.pooled = nn.Linear(width, width)

    def forward(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # torch.where, not a product: padding has no part in outputs and gradients, even where it is NaN.
        text = torch.where(mask.unsqueeze(-1), text, 0).to(self.pooled.weight.dtype)
        tokens = self.layers(self.norm(text))
        tokens = torch.cat([self.start.to(tokens.dtype).expand(len(tokens), 1, -1), tokens], dim=1)
        mask = F.pad(mask, (1, 0), value=True)
        mean = (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        if tokens.device.type == "cuda":
            tokens, mask = aligned(tokens, mask)
        return tokens, mask, self.pooled(mean)

    def complete(
        self, text: Tensor | None, mask: Tensor | None, batch: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Text (B, L, dim) and mask (B, L), from whatever of them was given. Raises ValueError where they don't fit."""
        if text is None:
            text = torch.zeros(batch, 0, self.dim, device=device)
            return text, torch.zeros(batch, 0, dtype=torch.bool, device=device)
        if text.ndim != 3 or text.shape[2] != self.dim or len(text) not in (1, batch):
            raise ValueError(f"text of shape {tuple(text.shape)}: ({batch}, L, {self.dim}) is needed")
        if mask is None:
            mask = torch.ones(text.shape[:2], dtype=torch.bool, device=device)
        elif mask.shape != text.shape[:2]:
            raise ValueError(f"a text mask of shape {tuple(mask.shape)} for a text of shape {tuple(text.shape)}")
        return text.expand(batch, -1, -1), mask.bool().expand(batch, -1)


def aligned(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(B, L, D) and (B, L) padded with masked zeros to a multiple of `ALIGNED` tokens."""
    more = -tokens.shape[1] % ALIGNED
    return F.pad(tokens, (0, 0, 0, more)), F.pad(mask, (0, more))


class ConditionEmbedding(nn.Module):
    """Numbers (B, K), NaN where unknown, to (B, D). Each has its own embedding for "unknown".

    Numbers are measured in standard deviations from their mean: the buffers `mean` and `std` (K,), set from the
    dataset. They stay float32 whatever the module is cast to, as a mean may be a thousand times the deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, names: tuple[str, ...], width: int):
        super().__init__()
        self.names = names
        self.register_buffer("mean", torch.zeros(len(names)))
        self.register_buffer("std", torch.ones(len(names)))
        self.values = nn.Linear(len(names) * CONDITION_FEATURES, width)
        self.unknown = nn.Parameter(torch.randn(len(names), width) * 0.02)
        self.out = nn.Linear(width, width)

    def forward(self, values: Tensor) -> Tensor:
        unknown, dtype = values.isnan(), self.values.weight.dtype
        known = torch.where(unknown, 0, (values.float() - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)
        places = torch.linspace(0, 1, CONDITION_FEATURES // 2, device=values.device)
        angles = known.unsqueeze(-1) * (2 * math.pi / 64) * 128**places  # (B, K, features / 2)
        features = torch.cat([angles.cos(), angles.sin()], dim=-1).masked_fill(unknown.unsqueeze(-1), 0)
        hidden = self.values(features.flatten(1).to(dtype)) + unknown.to(dtype) @ self.unknown
        return self.out(F.silu(hidden))

    def complete(self, values: Tensor | None, batch: int, device: torch.device) -> Tensor:
        """Conditions (B, K), all unknown if not given. Raises ValueError where they don't fit."""
        if values is None:
            return torch.full((batch, len(self.names)), torch.nan, device=device)
        if values.ndim != 2 or values.shape[1] != len(self.names) or len(values) not in (1, batch):
            wanted = f"({batch}, {len(self.names)}) for {', '.join(self.names)}"
            raise ValueError(f"conditions of shape {tuple(values.shape)}: {wanted}")
        return values.expand(batch, -1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the buffers like everything else, but casts them to no other dtype."""
        mean, std = self.mean, self.std
        super()._apply(fn, recurse)
        if not mean.is_meta and not self.mean.is_meta:
            self.mean, self.std = mean.to(self.mean.device), std.to(self.std.device)
        return self


class Context(nn.Module):
    """Text and conditions of a network, those that its settings name."""

    def __init__(self, settings: BlockSettings):
        super().__init__()
        self.names, self.width = settings.conditions, settings.width
        self.text = TextEmbedding(settings.text_dim, settings.width) if settings.text_dim else None
        self.conditions = ConditionEmbedding(settings.conditions, settings.width) if settings.conditions else None

    def forward(
        self,
        text: Tensor | None,
        text_mask: Tensor | None,
        conditions: Tensor | None,
        batch: int,
        device: torch.device,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """One vector of everything (B, D), or (1, D) of zeros; the text (B, 1 + L, D) and its mask, or None for both.

        Raises ValueError for what the network does not take and for shapes that don't fit.
        """
        if self.text is None and text is not None:
            raise ValueError("this network takes no text: its text_dim is 0")
        if self.conditions is None and conditions is not None:
            raise ValueError("this network takes no conditions: its settings name none")
        parts, mask = [], None
        if self.text is not None:
            text, mask, pooled = self.text(*self.text.complete(text, text_mask, batch, device))
            parts.append(pooled)
        if self.conditions is not None:
            parts.append(self.conditions(self.conditions.complete(conditions, batch, device)))
        return sum(parts) if parts else torch.zeros(1, self.width, device=device), text, mask

    def set_scales(self, scales: Mapping[str, tuple[float, float]]) -> None:
        """See `DiT.set_condition_scales`."""
        if unknown := sorted(set(scales) - set(self.names)):
            raise ValueError(f"no condition {', '.join(unknown)}: there are {', '.join(self.names) or 'none'}")
        if self.conditions is None:
            return
        for name, (mean, std) in scales.items():
            if not (math.isfinite(mean) and math.isfinite(std) and std >= 0):
                raise ValueError(f"condition {name}: mean {mean!r}, standard deviation {std!r}: finite numbers")
            place = self.names.index(name)
            self.conditions.mean[place], self.conditions.std[place] = mean, std or 1.0
