"""What may stand between encoder and decoder: a Gaussian (KL), or one of three ways to integer tokens.

All take features (B, C, T, H, W) and give a `Quantized`. The discrete ones give the decoder exactly what their
tokens stand for, in training too, and pass its gradient on to the features unchanged (straight through, Bengio
et al. 2013). Losses are means per element, so that their strength does not change with the length of a clip.
All arithmetic is in float32, whatever the features come in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Quantized:
    """`latent` (B, Z, T, H, W) goes to the decoder, in the dtype of the features; `loss` is a float32 scalar to be
    added to the reconstruction's; `tokens` (B, T, H, W) int64 are None where there are none.
    """

    latent: Tensor
    loss: Tensor
    tokens: Tensor | None = None


class Quantizer(nn.Module):
    """`features` are the channels it wants from the encoder, `channels` those it gives the decoder, `codes` the
    number of different tokens (0: none).
    """

    features: int
    channels: int
    codes: int = 0

    def forward(self, features: Tensor) -> Quantized:
        raise NotImplementedError

    def latent_of(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, H, W) to what they stand for, (B, Z, T, H, W) float32. Raises ValueError if one is no code."""
        if not self.codes:
            raise ValueError(f"{type(self).__name__} has no tokens")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codes:
            raise ValueError(f"tokens from {int(tokens.min())} to {int(tokens.max())}, of {self.codes} codes")
        return self._vectors(tokens).movedim(-1, 1)

    def _vectors(self, tokens: Tensor) -> Tensor:
        """Tokens (...) to vectors (..., Z) float32."""
        raise NotImplementedError


class StraightThrough(torch.autograd.Function):
    """`quantized` forward, bit for bit; its gradient goes to `features`. (x + (q - x).detach() would be rounded.)"""

    @staticmethod
    def forward(context: Any, features: Tensor, quantized: Tensor) -> Tensor:
        return quantized.to(features.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class GaussianKL(Quantizer):
    """Diagonal Gaussian with the KL term to a standard normal (Kingma and Welling 2014): mean and logvar, stacked
    along the channels, in; a sample out in training, the mean otherwise.
    """

    LOGVAR = (-30.0, 20.0)  # beyond these exp() is of no use in float32

    def __init__(self, channels: int):
        super().__init__()
        self.features, self.channels = 2 * channels, channels

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2Z, T, H, W) to mean and clamped logvar, each (B, Z, T, H, W) float32."""
        mean, logvar = features.float().chunk(2, dim=1)
        return mean, logvar.clamp(*self.LOGVAR)

    def forward(self, features: Tensor) -> Quantized:
        mean, logvar = self.moments(features)
        loss = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        latent = mean + (0.5 * logvar).exp() * torch.randn_like(mean) if self.training else mean
        return Quantized(latent.to(features.dtype), loss)


class VectorQuantizer(Quantizer):
    """The nearest of `codes` vectors (van den Oord et al. 2017), which follow their features as moving averages.

    The first batch in training fills the codebook. A code that gets less than DEAD of its fair share is set to a
    feature of the batch. Across processes the averages are those of all of them.
    """

    DEAD = 0.03
    MOST_DISTANCES = 1 << 26  # computed at a time: 256 MB

    def __init__(self, channels: int, codes: int = 8192, decay: float = 0.99, commitment: float = 0.25):
        super().__init__()
        self.features = self.channels = channels
        self.codes, self.decay, self.commitment = codes, decay, commitment
        self.register_buffer("codebook", torch.randn(codes, channels) / math.sqrt(channels))  # (K, C)
        self.register_buffer("counts", torch.ones(codes))  # moving average of features per code and batch
        self.register_buffer("sums", self.codebook.clone())  # (K, C), of their vectors
        self.register_buffer("started", torch.tensor(False))

    def forward(self, features: Tensor) -> Quantized:
        vectors = features.float().movedim(1, -1)  # (B, T, H, W, C)
        flat = vectors.reshape(-1, self.channels)
        if self.training and not self.started:
            self._start(flat.detach())
        tokens = self._nearest(flat.detach())  # (N,)
        quantized = self.codebook[tokens].view_as(vectors)
        loss = self.commitment * F.mse_loss(vectors, quantized)
        latent = StraightThrough.apply(features, quantized.movedim(-1, 1))
        if self.training:
            self._follow(flat.detach(), tokens)
        return Quantized(latent, loss, tokens.view(vectors.shape[:-1]))

    def _apply(self, fn: Any, recurse: bool = True) -> VectorQuantizer:
        """A network cast to bf16 keeps its codebook in float32: rounded, it would be another one."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        return super()._apply(moved, recurse)

    def _vectors(self, tokens: Tensor) -> Tensor:
        return self.codebook[tokens]

    def _nearest(self, flat: Tensor) -> Tensor:
        """(N, C) to the index of the nearest code, (N,)."""
        lengths = self.codebook.square().sum(1)  # |x - c|^2 without |x|^2, which is the same for every code
        pieces = flat.split(max(1, self.MOST_DISTANCES // self.codes))
        return torch.cat([torch.addmm(lengths, x, self.codebook.T, alpha=-2).argmin(1) for x in pieces])

    @torch.no_grad()
    def _start(self, flat: Tensor) -> None:
        self.codebook.copy_(self._picked(flat, self.codes))
        self.sums.copy_(self.codebook)
        self.counts.fill_(1.0)
        self.started.fill_(True)

    @torch.no_grad()
    def _follow(self, flat: Tensor, tokens: Tensor) -> None:
        counts = torch.bincount(tokens, minlength=self.codes).to(flat.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, tokens, flat)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        fair = self.counts.mean()
        dead = self.counts < self.DEAD * fair
        picked = self._picked(flat, self.codes)  # drawn every time: what is random does not depend on what is dead
        self.counts.copy_(torch.where(dead, fair, self.counts))
        self.sums.copy_(torch.where(dead[:, None], picked * fair, self.sums))
        self.codebook.copy_(self.sums / self.counts.clamp(min=1e-12)[:, None])

    def _picked(self, flat: Tensor, count: int) -> Tensor:
        """Features of the batch (count, C), at random and none twice where there are enough; the same everywhere."""
        order = torch.randperm(len(flat), device=flat.device)
        picked = flat[order.repeat(-(-count // len(flat)))[:count]].contiguous()
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(picked, src=0)
        return picked


class LookupFreeQuantizer(Quantizer):
    """One bit a channel, its sign (LFQ, Yu et al. 2024, MAGVIT-v2): a latent of -1 and 1, token = the bits as a number.

    The loss holds features to their signs, and by entropies asks that each be sure of its code (first term) and
    that all codes be used (second). Bits count as independent given a feature; the entropy of the whole codebook
    is taken over groups of GROUP bits, since there are 2^C codes.
    """

    GROUP = 10

    def __init__(self, channels: int, commitment: float = 0.25, entropy: float = 0.1, temperature: float = 1.0):
        super().__init__()
        if not 1 <= channels <= 62:
            raise ValueError(f"LFQ has one bit a channel and int64 tokens: 1 to 62 channels, got {channels}")
        self.features = self.channels = channels
        self.codes = 1 << channels
        self.commitment, self.entropy, self.temperature = commitment, entropy, temperature
        self.register_buffer("places", 2 ** torch.arange(channels), persistent=False)  # (C,)

    def forward(self, features: Tensor) -> Quantized:
        vectors = features.float().movedim(1, -1)  # (B, T, H, W, C)
        bits = vectors > 0
        signs = torch.where(bits, 1.0, -1.0)
        loss = self.commitment * F.mse_loss(vectors, signs) + self.entropy * self._entropy_loss(vectors)
        tokens = (bits * self.places).sum(-1)
        return Quantized(StraightThrough.apply(features, signs.movedim(-1, 1)), loss, tokens)

    def _vectors(self, tokens: Tensor) -> Tensor:
        return torch.where((tokens[..., None] & self.places) > 0, 1.0, -1.0)

    def _entropy_loss(self, vectors: Tensor) -> Tensor:
        """Mean entropy of a feature's code less the entropy of the mean code, in nats a bit."""
        # softmax over -|x - c|^2 / temperature falls apart into one sigmoid a bit.
        logits = vectors.reshape(-1, self.channels) * (4 / self.temperature)  # (N, C)
        chances = logits.sigmoid()
        each = (F.softplus(logits) - logits * chances).sum(1).mean()
        spread = sum(_joint_entropy(group) for group in chances.split(self.GROUP, dim=1))
        return (each - spread) / self.channels


class FiniteScalarQuantizer(Quantizer):
    """Each channel squashed and rounded to one of a few levels (FSQ, Mentzer et al. 2024); nothing to be learnt.

    A latent lies in [-1, 1]; the token counts the levels as digits, the first channel the lowest.
    """

    def __init__(self, levels: Sequence[int] = (8, 8, 8, 5, 5, 5)):
        super().__init__()
        if not levels or min(levels) < 2 or math.prod(levels) >= 1 << 62:
            raise ValueError(f"FSQ needs two levels or more for each channel and int64 tokens, got {list(levels)}")
        self.features = self.channels = len(levels)
        self.codes = math.prod(levels)
        places = [math.prod(levels[:channel]) for channel in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)  # (C,)
        self.register_buffer("places", torch.tensor(places), persistent=False)  # (C,)

    def forward(self, features: Tensor) -> Quantized:
        vectors = features.float().movedim(1, -1)  # (B, T, H, W, C)
        reach = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)  # an even number of levels has none in the middle
        squashed = (vectors + (offset / reach).atanh()).tanh() * reach - offset
        whole = squashed.round()
        half = self.levels // 2
        latent = StraightThrough.apply(
            (squashed / half).movedim(-1, 1).to(features.dtype), (whole / half).movedim(-1, 1)
        )
        tokens = ((whole.long() + half) * self.places).sum(-1)
        return Quantized(latent, features.new_zeros((), dtype=torch.float32), tokens)

    def _vectors(self, tokens: Tensor) -> Tensor:
        digits = tokens[..., None] // self.places % self.levels
        half = self.levels // 2
        return (digits - half).float() / half


KINDS = {
    "kl": GaussianKL,
    "vq": VectorQuantizer,
    "lfq": LookupFreeQuantizer,
    "fsq": FiniteScalarQuantizer,
}


def make_quantizer(kind: str, channels: int, **options: Any) -> Quantizer:
    """The quantiser of that kind for latents of so many channels. Raises ValueError for what there is not."""
    if kind not in KINDS:
        raise ValueError(f"unknown quantizer {kind!r}: {', '.join(KINDS)}")
    if kind != "fsq":
        return KINDS[kind](channels, **options)
    made = FiniteScalarQuantizer(**options)
    if made.channels != channels:
        raise ValueError(f"FSQ has {made.channels} levels ({made.levels.tolist()}) for {channels} channels: one each")
    return made


def _joint_entropy(chances: Tensor) -> Tensor:
    """Entropy in nats of the mean over N of products of bits, (N, bits) chances of 1 to a scalar."""
    left, right = _products(chances[:, : (half := chances.shape[1] // 2)]), _products(chances[:, half:])
    mean = (left.T @ right / len(chances)).flatten()  # (2^bits,), without (N, 2^bits)
    return -(mean * mean.clamp(min=1e-30).log()).sum()  # the gradient of xlogy is NaN where a chance is 0


def _products(chances: Tensor) -> Tensor:
    """(N, bits) chances of 1 to those of every pattern of them, (N, 2^bits)."""
    found = chances.new_ones(len(chances), 1)
    for chance in chances.T:
        found = torch.cat([found * (1 - chance[:, None]), found * chance[:, None]], dim=1)
    return found
