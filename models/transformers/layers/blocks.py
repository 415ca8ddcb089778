"""Transformer blocks with adaLN-zero (DiT, Peebles and Xie 2023) and cross-attention to text (PixArt, Chen et al.
2023), for the diffusion transformer and the token transformer.

Tokens keep their frames: x is (B, T, S, D), S tokens to a frame. A block takes nothing but tensors, so that it can be
compiled, checkpointed and sharded by itself.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.settings.transformers import BlockSettings
from models.transformers.layers.conditions import EPSILON, RMSNorm
from models.transformers.layers.rotary import rotate

MASKED = -3e4  # within the range of float16
CHANNELS = 8  # heads are a multiple of it


class Attention(nn.Module):
    """Self-attention of tokens, (B, T, S, D) to (B, T, S, D). `over` says which tokens see each other: "all", those of
    one frame ("space"), or those at one place in all frames ("time").
    """

    def __init__(self, settings: BlockSettings, over: Literal["all", "space", "time"] = "all", causal: bool = False):
        super().__init__()
        self.heads, self.over, self.causal = settings.heads, over, causal
        self.qkv = nn.Linear(settings.width, 3 * settings.width)
        self.norms = _norms(settings)
        self.out = nn.Linear(settings.width, settings.width)

    def forward(self, x: Tensor, angles: Tensor, cache: Tensor | None = None, at: int = 0) -> Tensor:
        """`angles` (2, B or 1, T, S, head / 2). `cache` (2, B, heads, N, head) holds the keys and values of the `at`
        tokens before these; those of x are written after them. With a causal mask x must be one token then.
        """
        batch, frames, places, width = x.shape
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(3)  # each (B, T, S, heads, head)
        q, k = rotate(self.norms[0](q), angles).to(v.dtype), rotate(self.norms[1](k), angles).to(v.dtype)
        q, k, v = (self._sequences(each) for each in (q, k, v))
        causal = self.causal
        if cache is not None:
            end = at + q.shape[2]
            if at and end - at > 1 and self.causal:
                raise ValueError(f"{end - at} tokens after {at} cached ones: one at a time")
            cache[0, :, :, at:end], cache[1, :, :, at:end] = k, v
            k, v = cache[0, :, :, :end], cache[1, :, :, :end]
            causal = causal and q.shape[2] > 1
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2)  # (sequences, N, heads, head)
        if self.over == "time":
            return self.out(y.reshape(batch, places, frames, width).transpose(1, 2))
        return self.out(y.reshape(batch, frames, places, width))

    def _sequences(self, x: Tensor) -> Tensor:
        """(B, T, S, heads, head) to (sequences, heads, N, head)."""
        if self.over == "time":
            x = x.transpose(1, 2)
        return (x.flatten(1, 2) if self.over == "all" else x.flatten(0, 1)).transpose(1, 2)


class CrossAttention(nn.Module):
    """Attention of tokens (B, T, S, D) to a text (B, L, D) where its mask (B, L) is true; its output is 0 at first
    (PixArt).

    Kernels of flash attention take no mask. With `maskless` one more channel stands in its place, 1 for queries and 0
    or `MASKED` for keys, which gives the same numbers.
    """

    def __init__(self, settings: BlockSettings):
        super().__init__()
        self.heads = settings.heads
        self.q = nn.Linear(settings.width, settings.width)
        self.kv = nn.Linear(settings.width, 2 * settings.width)
        self.norms = _norms(settings)
        self.out = nn.Linear(settings.width, settings.width)
        self.maskless = False

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        q = self.q(x).flatten(1, 2).unflatten(-1, (self.heads, -1))  # (B, N, heads, head)
        k, v = self.kv(text).unflatten(-1, (2, self.heads, -1)).unbind(2)  # each (B, L, heads, head)
        q, k = self.norms[0](q).to(v.dtype), self.norms[1](k).to(v.dtype)
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        y = attention_by_channel(q, k, v, mask) if self.maskless else (
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        )  # fmt: skip
        return self.out(y.transpose(1, 2).reshape(x.shape))


def attention_by_channel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of queries (B, heads, N, head) to the keys and values (B, heads, L, head) where `mask` (B, L) is true,
    by one more channel instead of a mask; heads are padded to a multiple of `CHANNELS`, as kernels want them.

    With n channels a masked key has a logit `MASKED` / sqrt(n) lower, so its share is 0 in every dtype.
    """
    head = q.shape[-1]
    more = -(head + 1) % CHANNELS
    hidden = torch.where(mask, 0.0, MASKED).to(k.dtype)[:, None, :, None].expand(*k.shape[:3], 1)
    q = F.pad(torch.cat([q, torch.ones_like(q[..., :1])], dim=-1), (0, more))
    k = F.pad(torch.cat([k, hidden], dim=-1), (0, more))
    v = F.pad(v, (0, 1 + more))
    return F.scaled_dot_product_attention(q, k, v, scale=head**-0.5)[..., :head]


class Block(nn.Module):
    """Self-attention, cross-attention if there is text, and a feed-forward part, each added to its input.

    Self-attention and feed-forward are shifted, scaled and gated by the condition (adaLN-zero): with gates of 0 at
    first, a block is the identity. "factorised" attention is within each frame and then, for more than one frame, along
    time; for an image it is the same as full attention.
    """

    def __init__(
        self, settings: BlockSettings, attention: Literal["full", "factorised"] = "full", causal: bool = False
    ):
        super().__init__()
        width, hidden = settings.width, int(settings.width * settings.mlp)
        self.norm = nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        self.attention = Attention(settings, "all" if attention == "full" else "space", causal)
        self.time_modulation: nn.Linear | None = None
        self.time_attention: Attention | None = None
        if attention == "factorised":
            self.time_modulation, self.time_attention = nn.Linear(width, 3 * width), Attention(settings, "time")
        self.cross = CrossAttention(settings) if settings.text_dim else None
        self.cross_norm = nn.LayerNorm(width, eps=EPSILON) if settings.text_dim else None
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def forward(
        self,
        x: Tensor,
        c: Tensor,
        angles: Tensor,
        high_t_mask: Tensor | None = None,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Tensor | None = None,
        at: int = 0,
    ) -> Tensor:
        """x (B, T, S, D). c (B, T or 1, S or 1, D): the condition after its SiLU; or (B, 2, 1, D) with `high_t_mask`,
        bool (B, T, S, 1): the first for tokens where it is false, the second where it is true. `cache`: see
        `Attention`.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulated(self.modulation, c, high_t_mask, 6)
        x = x + gate * self.attention(self.norm(x) * (1 + scale) + shift, angles, cache, at)
        if self.time_attention is not None and self.time_modulation is not None:
            if x.shape[1] > 1:
                shift, scale, gate = modulated(self.time_modulation, c, high_t_mask, 3)
                x = x + gate * self.time_attention(self.norm(x) * (1 + scale) + shift, angles)
            elif torch.is_grad_enabled():
                # Adds 0, but gives the weights a gradient of 0, as DistributedDataParallel wants.
                for weight in (*self.time_modulation.parameters(), *self.time_attention.parameters()):
                    x = x + weight.flatten()[:0].sum()
        if self.cross is not None and self.cross_norm is not None and text is not None and mask is not None:
            x = x + self.cross(self.cross_norm(x), text, mask)
        return x + mlp_gate * self.mlp(self.norm(x) * (1 + mlp_scale) + mlp_shift)


class Head(nn.Module):
    """From tokens (B, T, S, D) to `outputs` numbers each, (B, T, S, `outputs`); 0 at first."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, outputs)

    def forward(self, x: Tensor, c: Tensor, high_t_mask: Tensor | None = None) -> Tensor:
        shift, scale = modulated(self.modulation, c, high_t_mask, 2)
        return self.out(self.norm(x) * (1 + scale) + shift)


def modulated(layer: nn.Linear, c: Tensor, high_t_mask: Tensor | None, parts: int) -> tuple[Tensor, ...]:
    """The condition's shifts, scales and gates, each (B, T or 1, S or 1, D)."""
    found = layer(c).chunk(parts, dim=-1)
    if high_t_mask is None:
        return found
    # torch.where, not indexing: its gradient is a plain sum, the same each time.
    return tuple(torch.where(high_t_mask, each[:, 1:], each[:, :1]) for each in found)


def init_transformer_weights(network: nn.Module) -> None:
    """Initial weights as DiT's: Xavier, and 0 for gates and outputs that add nothing at first."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        zeros: list[nn.Linear | None] = []
        if isinstance(module, Block):
            zeros = [module.modulation, module.time_modulation, module.cross.out if module.cross is not None else None]
        elif isinstance(module, Head):
            zeros = [module.modulation, module.out]
        for layer in filter(None, zeros):
            nn.init.zeros_(layer.weight)


def _norms(settings: BlockSettings) -> nn.ModuleList:
    """RMS norms of queries and of keys, or identities."""
    head = settings.width // settings.heads
    return nn.ModuleList(RMSNorm(head) if settings.qk_norm else nn.Identity() for _ in range(2))
