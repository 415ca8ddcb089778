"""A causal transformer over the tokens of a quantizer, frame by frame, row by row (VideoGPT, Yan et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.settings.transformers import TokenSettings
from models.transformers.flops import token_flops
from models.transformers.layers.blocks import Block, Head, init_transformer_weights
from models.transformers.layers.conditions import Context
from models.transformers.layers.rotary import POSITION_FEATURES, position_features, rotary_angles


class TokenTransformer(nn.Module):
    """The blocks of the DiT with a causal mask: each token is predicted from those before it and, through adaLN and
    cross-attention, from the text and the conditions. At first all codes are equally likely.
    """

    def __init__(self, settings: TokenSettings):
        super().__init__()
        self.settings = settings
        self.codes = nn.Embedding(settings.codes + 1, settings.width)  # the last one stands before the first token
        self.places = nn.Linear(POSITION_FEATURES, settings.width)
        self.base = nn.Parameter(
            torch.randn(settings.width) * 0.02
        )  # the condition where there is no text and no number
        self.context = Context(settings)
        self.blocks = nn.ModuleList(Block(settings, causal=True) for _ in range(settings.depth))
        self.head = Head(settings.width, settings.codes)
        init_transformer_weights(self)
        nn.init.normal_(self.codes.weight, std=0.02)

    def forward(
        self,
        tokens: Tensor,
        *,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        conditions: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, H, W, codes) of each of the tokens (B, T, H, W) given all before it in that order.

        Text and conditions are as the DiT takes them. Raises ValueError for tokens that are no codes.
        """
        if tokens.ndim != 4 or not tokens.numel():
            raise ValueError(f"tokens of shape {tuple(tokens.shape)}: (B, T, H, W) is needed")
        if tokens.device.type == "cpu" and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.settings.codes:
            # On a GPU this check would wait for the device; there the embedding itself fails, less clearly.
            raise ValueError(f"tokens from {int(tokens.min())} to {int(tokens.max())}, of {self.settings.codes} codes")
        c, text, mask = self._condition(text, text_mask, conditions, len(tokens), tokens.device)
        before = F.pad(tokens.flatten(1)[:, :-1], (1, 0), value=self.settings.codes)  # (B, N)
        _, frames, height, width = tokens.shape
        x = self._run(before, self._where((frames, height, width), tokens.device), c, text, mask)
        return x.reshape(*tokens.shape, -1)

    def loss(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """(B,) mean negative log-likelihood of tokens (B, T, H, W), in nats per token, from their logits."""
        each = F.cross_entropy(logits.float().flatten(0, 3), tokens.flatten(), reduction="none")
        return each.view(len(tokens), -1).mean(1)

    @torch.no_grad()
    def generate(
        self,
        shape: tuple[int, int, int],
        batch: int = 1,
        *,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        conditions: Tensor | None = None,
        negative: Mapping[str, Tensor | None] | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        given: Tensor | None = None,
        cached: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Tokens (B, T, H, W) int64, one after another, each drawn from softmax(logits / temperature) among the `top_k`
        likeliest; temperature 0 takes the likeliest. `given` (B, K, H, W): the first frames, to be continued.

        Guided logits are negative + guidance (conditional - negative); `negative` replaces those of text, text_mask and
        conditions that it names. `cached` keeps keys and values, which changes only the time it takes. `generator` is
        one of the CPU. Raises ValueError for invalid settings.
        """
        if not temperature >= 0 or (top_k is not None and top_k < 1):
            raise ValueError(f"temperature {temperature!r}, top_k {top_k!r}: from 0 and from 1 on")
        if guidance != 1 and negative is None:
            raise ValueError(f"guidance {guidance!r} needs the empty or a negative prompt to guide away from")
        device = self.base.device
        if unknown := sorted(set(negative or {}) - {"text", "text_mask", "conditions"}):
            raise ValueError(f"negative condition {', '.join(unknown)}: there are text, text_mask, conditions")
        positive = {"text": text, "text_mask": text_mask, "conditions": conditions}
        sides = [positive] if guidance == 1 else [positive, {**positive, **(negative or {})}]
        contexts = [self._condition(**side, batch=batch, device=device) for side in sides]
        where, count = self._where(shape, device), math.prod(shape)
        found = torch.full((batch, 1 + count), self.settings.codes, dtype=torch.int64, device=device)
        start = 0
        if given is not None:
            if given.shape[0] != batch or given.shape[2:] != shape[1:] or not given.shape[1] < shape[0]:
                raise ValueError(f"given tokens of shape {tuple(given.shape)} for {batch} of {shape}")
            start = given[0].numel()
            found[:, 1 : 1 + start] = given.flatten(1)
        head = self.settings.width // self.settings.heads
        dtype = self.codes.weight.dtype
        caches = [
            torch.empty(len(self.blocks), 2, batch, self.settings.heads, count, head, dtype=dtype, device=device)
            for _ in sides
        ]
        for place in range(start, count):
            first = (0 if place == start else place) if cached else 0  # the given tokens go in together
            logits = [
                self._run(found[:, first : place + 1], where, *context, cache if cached else None, first)[:, -1].float()
                for context, cache in zip(contexts, caches, strict=True)
            ]
            one = logits[0] if guidance == 1 else logits[1] + guidance * (logits[0] - logits[1])
            found[:, 1 + place] = _drawn(one, temperature, top_k, generator)
        return found[:, 1:].reshape(batch, *shape)

    def set_condition_scales(self, scales: Mapping[str, tuple[float, float]]) -> None:
        """As `DiT.set_condition_scales`."""
        self.context.set_scales(scales)

    def flops(self, shape: tuple[int, ...], text_tokens: int = 0) -> int:
        """FLOPs of a forward pass over tokens (B, T, H, W), as `DiT.flops`; causal attention counts as full."""
        return token_flops(self.settings, shape[0], math.prod(shape[1:]), text_tokens)

    def _condition(
        self,
        text: Tensor | None,
        text_mask: Tensor | None,
        conditions: Tensor | None,
        batch: int,
        device: torch.device,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """c (B, 1, 1, D), text (B, 1 + L, D) and its mask, as a `Block` takes them."""
        context, text, mask = self.context(text, text_mask, conditions, batch, device)
        return F.silu(self.base + context)[:, None, None], text, mask

    def _where(self, shape: tuple[int, int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Of the places of a grid: angles (2, 1, 1, N, head / 2), and the embedded position features (N, D)."""
        head = self.settings.width // self.settings.heads
        angles = rotary_angles(shape, head, device, self.settings.rotary_base).flatten(1, 3)[:, None, None]
        return angles, self.places(position_features(shape, device).flatten(0, 2).to(self.places.weight.dtype))

    def _run(
        self,
        before: Tensor,
        where: tuple[Tensor, Tensor],
        c: Tensor,
        text: Tensor | None,
        mask: Tensor | None,
        caches: Tensor | None = None,
        at: int = 0,
    ) -> Tensor:
        """Logits (B, N, codes) of the tokens that follow those of `before` (B, N), whose first is token number `at`."""
        angles, here = where
        angles, here = angles[:, :, :, at : at + before.shape[1]], here[at : at + before.shape[1]]
        x = (self.codes(before) + here)[:, None].clone()  # (B, 1, N, D), no view: see DiT.forward
        for index, block in enumerate(self.blocks):
            x = block(x, c, angles, None, text, mask, None if caches is None else caches[index], at)
        return self.head(x, c)[:, 0]


def _drawn(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """(B,) codes drawn from logits (B, codes)."""
    if temperature == 0:
        return logits.argmax(1)
    if top_k is not None and top_k < logits.shape[1]:
        least = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    shares = torch.softmax(logits / temperature, dim=1).cpu()
    return torch.multinomial(shares, 1, generator=generator)[:, 0].to(logits.device)
