"""A video diffusion transformer (DiT): latents in patches, adaLN-zero blocks, cross-attention to text, rotary
positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.settings.transformers import DiTSettings
from models.transformers.flops import dit_flops
from models.transformers.layers.blocks import Block, Head, init_transformer_weights
from models.transformers.layers.conditions import Context, TimeEmbedding
from models.transformers.layers.rotary import POSITION_FEATURES, position_features, rotary_angles


class DiT(nn.Module):
    """DiT (Peebles and Xie 2023) for video. With its initial weights its output is exactly 0 and its blocks are
    identities.

    `mixer` and `blocks` hold everything that grows with depth; each block may be compiled, checkpointed or sharded
    alone.
    """

    def __init__(self, settings: DiTSettings):
        super().__init__()
        self.settings = settings
        frames, height, width = settings.patch
        values = settings.channels * frames * height * width  # numbers in a patch
        self.patches = nn.Linear(values, settings.width)
        self.places = nn.Linear(POSITION_FEATURES, settings.width)
        self.time = TimeEmbedding(settings.width)
        self.context = Context(settings)
        self.mixer = nn.ModuleList(Block(settings, settings.attention) for _ in range(settings.mixer_depth))
        self.blocks = nn.ModuleList(Block(settings, settings.attention) for _ in range(settings.depth))
        self.head = Head(settings.width, values)
        init_transformer_weights(self)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        *,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        conditions: Tensor | None = None,
        kept: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """The prediction for x_t (B, C, T, H, W), of the same shape.

        t in [0, 1]: (), (B,), or per latent (B, T, H, W) where each size may be 1; a patch has the latest time in it.
        `known`, bool (B, T, H, W), beside t (B,): latents whose time is 0. Times per latent can say the same, but a GPU
        would have to be waited for to see that there are two times only.
        text (B or 1, L, text_dim) with text_mask (B or 1, L), true for tokens that count, all without a mask; no text
        is the same as a text masked everywhere. conditions (B or 1, K), NaN where unknown; None means all unknown.
        `kept` (B, n): token indices that remain after the mixer (`draw_kept`); the output at other tokens is 0 and
        meaningless (`dropped_mask`). Raises ValueError for shapes that don't fit.
        """
        grid = self.grid(x.shape)
        batch, dtype = len(x), self.patches.weight.dtype
        c, high_t_mask = self._times(t, batch, grid) if known is None else self._masked_times(t, known, batch, grid)
        context, text, mask = self.context(text, text_mask, conditions, batch, x.device)
        c = F.silu(c + context[:, None, None].to(c.dtype))
        here = self.places(position_features(grid, x.device).flatten(1, 2).to(dtype))  # (T', S, D)
        tokens = self.patches(self._patched(x.to(dtype))) + here  # (B, T', S, D)
        head = self.settings.width // self.settings.heads
        angles = rotary_angles(grid, head, x.device, self.settings.rotary_base).flatten(2, 3)[
            :, None
        ]  # (2, 1, T', S, head/2)
        of_frames = high_t_mask is None and c.shape[1] > 1 and c.shape[2] == 1
        if self.settings.attention == "full" and not of_frames:
            # One sequence (B, 1, N, D): a compiled block then is the same for images and clips.
            tokens, angles = tokens.flatten(1, 2)[:, None], angles.flatten(2, 3)[:, :, None]
            high_t_mask = high_t_mask if high_t_mask is None else high_t_mask.flatten(1, 2)[:, None]
            c = c if c.shape[2] == 1 else c.flatten(1, 2)[:, None]
        # Not views: later blocks get none, and a block would be compiled once more for the first one.
        tokens, angles = tokens.clone(), angles.clone()
        for block in self.mixer:
            tokens = block(tokens, c, angles, high_t_mask, text, mask)
        if kept is not None:
            tokens, c, angles, high_t_mask = _only(kept, tokens, c, angles, high_t_mask)
        for block in self.blocks:
            tokens = block(tokens, c, angles, high_t_mask, text, mask)
        output = self.head(tokens, c, high_t_mask)
        if kept is not None:
            everywhere = output.new_zeros(batch, 1, math.prod(grid), output.shape[-1])
            output = everywhere.scatter(2, kept[:, None, :, None].expand_as(output), output)
        return self._unpatched(output.reshape(batch, *grid, -1))

    def grid(self, shape: torch.Size | tuple[int, ...]) -> tuple[int, int, int]:
        """Tokens (T', H', W') for latents of the shape (B, C, T, H, W). Raises ValueError where patches don't divide
        them.
        """
        if len(shape) != 5 or shape[1] != self.settings.channels:
            raise ValueError(f"latents of shape {tuple(shape)}: (B, {self.settings.channels}, T, H, W) is needed")
        if any(size % patch or not size for size, patch in zip(shape[2:], self.settings.patch, strict=True)):
            raise ValueError(
                f"latents of {' x '.join(map(str, shape[2:]))} don't fall into patches of "
                f"{' x '.join(map(str, self.settings.patch))}"
            )
        frames, height, width = (size // patch for size, patch in zip(shape[2:], self.settings.patch, strict=True))
        return frames, height, width

    def set_condition_scales(self, scales: Mapping[str, tuple[float, float]]) -> None:
        """Sets the dataset's mean and standard deviation of conditions by name; a deviation of 0 counts as 1.

        Raises ValueError for an unknown name and for values that are not finite.
        """
        self.context.set_scales(scales)

    def flops(self, shape: tuple[int, ...], text_tokens: int = 0, kept: int | None = None) -> int:
        """FLOPs of a forward pass over latents (B, C, T, H, W) with texts padded to `text_tokens` and one time per
        sample: two for each multiply-add of matrix products and attention. `kept`: tokens per sample after the mixer.
        """
        return dit_flops(self.settings, shape[0], self.grid(shape), text_tokens, kept)

    def draw_kept(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor | None:
        """(B, n) int64, rising: indices of the tokens that stay after the mixer in training, a share 1 - `mask_ratio`
        of each sample's, at least one; None if nothing is dropped. `shape` is (B, C, T, H, W); `generator` is one of
        the CPU.
        """
        count = math.prod(self.grid(shape))
        if (kept := max(1, round(count * (1 - self.settings.mask_ratio)))) == count:
            return None
        return torch.rand(shape[0], count, generator=generator).argsort(1)[:, :kept].sort(1).values

    def dropped_mask(self, kept: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Bool (B, T, H, W), true where the output for latents (B, C, T, H, W) is meaningless, to be left out of the
        loss.
        """
        grid = self.grid(shape)
        lost = torch.ones(shape[0], math.prod(grid), dtype=torch.bool, device=kept.device)
        lost = lost.scatter(1, kept, False).view(-1, *grid)
        for dim, patch in enumerate(self.settings.patch, start=1):
            lost = lost.repeat_interleave(patch, dim)
        return lost

    def _times(self, t: Tensor, batch: int, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor | None]:
        """The embeddings of times and which token has which, as `Block` takes c and `high_t_mask`."""
        sizes = [size * patch for size, patch in zip(grid, self.settings.patch, strict=True)]
        if t.ndim <= 1 and t.numel() in (1, batch):
            return self.time(t.reshape(-1).expand(batch))[:, None, None], None
        if t.ndim != 4 or any(found not in (1, size) for found, size in zip(t.shape, (batch, *sizes), strict=True)):
            raise ValueError(
                f"times of shape {tuple(t.shape)} for latents of {batch} x {' x '.join(map(str, sizes))}: "
                "one per sample or per latent"
            )
        t = t.float().expand(batch, -1, -1, -1)
        for dim, patch in enumerate(self.settings.patch, start=1):
            if t.shape[dim] > 1:
                t = t.unflatten(dim, (-1, patch)).amax(dim + 1)
        if t.shape[2:] == (1, 1):
            return self.time(t.flatten(2)), None
        t = t.expand(-1, *grid).flatten(2)  # (B, T', S)
        low, high = t.amin((1, 2), keepdim=True), t.amax((1, 2), keepdim=True)
        high_t_mask = t == high
        if bool((high_t_mask | (t == low)).all()):  # as masks make them: two embeddings instead of one per token
            return self.time(torch.cat([low, high], dim=1)), high_t_mask.unsqueeze(-1)
        return self.time(t), None

    def _masked_times(self, t: Tensor, known: Tensor, batch: int, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """As `_times`, for times (B,) where `known` is false and 0 where it is true."""
        sizes = tuple(size * patch for size, patch in zip(grid, self.settings.patch, strict=True))
        if t.numel() not in (1, batch) or tuple(known.shape) != (batch, *sizes):
            raise ValueError(
                f"times of shape {tuple(t.shape)} and known of shape {tuple(known.shape)} for latents of {batch} x "
                f"{' x '.join(map(str, sizes))}: one time per sample, and known per latent"
            )
        for dim, patch in enumerate(self.settings.patch, start=1):
            known = known.unflatten(dim, (-1, patch)).all(dim + 1)
        t = t.reshape(-1, 1).float().expand(batch, 1)
        both = torch.cat([torch.zeros_like(t), t], dim=1)[:, :, None]  # (B, 2, 1)
        return self.time(both), ~known.flatten(2).unsqueeze(-1)

    def _patched(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, T', S, C x patch)."""
        frames, height, width = self.settings.patch
        x = x.unflatten(4, (-1, width)).unflatten(3, (-1, height)).unflatten(2, (-1, frames))
        return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(2, 3)

    def _unpatched(self, x: Tensor) -> Tensor:
        """(B, T', H', W', C x patch) to (B, C, T, H, W)."""
        x = x.unflatten(4, (self.settings.channels, *self.settings.patch)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _only(
    kept: Tensor, tokens: Tensor, c: Tensor, angles: Tensor, high_t_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Of tokens (B, 1, n, D), conditions, angles and mask: those at the indices `kept` (B, n)."""

    def chosen(x: Tensor) -> Tensor:
        x = x.expand(len(kept), *tokens.shape[1:3], -1).flatten(1, 2)
        return x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))[:, None]

    if high_t_mask is not None:
        high_t_mask = chosen(high_t_mask)
    elif c.shape[1:3] != (1, 1):
        c = chosen(c)
    return chosen(tokens).clone(), c, torch.stack([chosen(each) for each in angles]), high_t_mask
