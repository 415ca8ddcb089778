"""Quantizers: what stands between a VAE's encoder and decoder, a Gaussian (KL) or one of three ways to integer tokens.

All take features (B, C, T, H, W) and give a `Quantized`. The discrete ones give the decoder exactly the vectors that
their tokens stand for, in training too, and pass the decoder's gradient on to the features unchanged (straight through,
Bengio et al. 2013). Losses are means per element, so that they don't change with the length of a clip. All arithmetic
is in float32, whatever the dtype of the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from models.settings.vae import CODES, LEVELS


@dataclass
class Quantized:
    """`latent` (B, Z, T, H, W) goes to the decoder, in the dtype of the features; `loss`, a float32 scalar, is added to
    the reconstruction's; `tokens` (B, T, H, W) int64 are None for a Gaussian.
    """

    latent: Tensor
    loss: Tensor
    tokens: Tensor | None = None


class Quantizer(nn.Module):
    """Base class. `features` is the number of channels it takes from the encoder, `channels` the number it gives the
    decoder, `codes` the number of different tokens (0: none).
    """

    features: int
    channels: int
    codes: int = 0

    def forward(self, features: Tensor) -> Quantized:
        raise NotImplementedError

    def latent_of(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, H, W) to the latents they stand for, (B, Z, T, H, W) float32. Raises ValueError for tokens that
        are no codes.
        """
        if not self.codes:
            raise ValueError(f"{type(self).__name__} has no tokens")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codes:
            raise ValueError(f"tokens from {int(tokens.min())} to {int(tokens.max())}, of {self.codes} codes")
        return self._vectors(tokens).movedim(-1, 1)

    def _vectors(self, tokens: Tensor) -> Tensor:
        """Tokens (...) to vectors (..., Z) float32."""
        raise NotImplementedError


class StraightThrough(torch.autograd.Function):
    """Gives `quantized` bit for bit; its gradient goes to `features`. (x + (q - x).detach() would be rounded.)"""

    @staticmethod
    def forward(context: Any, features: Tensor, quantized: Tensor) -> Tensor:
        return quantized.to(features.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class GaussianKL(Quantizer):
    """Diagonal Gaussian with the KL term to a standard normal (Kingma and Welling 2014). Features are mean and logvar,
    stacked along the channels; the latent is a sample in training, the mean otherwise.
    """

    LOGVAR = (-30.0, 20.0)  # exp() beyond these leaves the useful range of float32

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

    The first batch in training fills the codebook. A code that gets less than DEAD of an equal share is replaced by a
    feature of the batch. In distributed training the averages are over all ranks.
    """

    DEAD = 0.03
    MOST_DISTANCES = 1 << 26  # computed at a time: 256 MB

    codebook: Tensor  # (K, C)
    counts: Tensor  # (K,)
    sums: Tensor  # (K, C)
    started: Tensor  # () bool

    def __init__(self, channels: int, codes: int = CODES, decay: float = 0.99, commitment: float = 0.25):
        super().__init__()
        self.features = self.channels = channels
        self.codes, self.decay, self.commitment = codes, decay, commitment
        self.register_buffer("codebook", torch.randn(codes, channels) / math.sqrt(channels))
        self.register_buffer(
            "counts", torch.ones(codes)
        )  # moving average of the number of features of a code in a batch
        self.register_buffer("sums", self.codebook.clone())  # moving average of the sum of those features
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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Keeps the codebook in float32 in a network cast to bfloat16: rounded, it would be another codebook."""

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
        picked = self._picked(
            flat, self.codes
        )  # drawn in every step, so that the random state does not depend on the codes
        self.counts.copy_(torch.where(dead, fair, self.counts))
        self.sums.copy_(torch.where(dead[:, None], picked * fair, self.sums))
        self.codebook.copy_(self.sums / self.counts.clamp(min=1e-12)[:, None])

    def _picked(self, flat: Tensor, count: int) -> Tensor:
        """Features of the batch (count, C), drawn at random, without repetition where there are enough; the same on all
        ranks.
        """
        order = torch.randperm(len(flat), device=flat.device)
        picked = flat[order.repeat(-(-count // len(flat)))[:count]].contiguous()
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(picked, src=0)
        return picked


class LookupFreeQuantizer(Quantizer):
    """One bit per channel, its sign (LFQ, Yu et al. 2024, MAGVIT-v2): a latent of -1 and 1, token = the bits as a
    number.

    The loss pulls features to their signs. Its two entropies ask that each feature be certain of its code (first) and
    that all codes be used (second). Bits count as independent given a feature; the entropy of the whole codebook is
    taken over groups of GROUP bits, since there are 2^C codes.
    """

    GROUP = 10

    places: Tensor  # (C,)

    def __init__(self, channels: int, commitment: float = 0.25, entropy: float = 0.1, temperature: float = 1.0):
        super().__init__()
        if not 1 <= channels <= 62:
            raise ValueError(f"LFQ has one bit a channel and int64 tokens: 1 to 62 channels, got {channels}")
        self.features = self.channels = channels
        self.codes = 1 << channels
        self.commitment, self.entropy, self.temperature = commitment, entropy, temperature
        self.register_buffer("places", 2 ** torch.arange(channels), persistent=False)

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
        """Mean entropy of a feature's code minus the entropy of the mean code, in nats per bit."""
        # softmax over -|x - c|^2 / temperature is a product of one sigmoid per bit.
        logits = vectors.reshape(-1, self.channels) * (4 / self.temperature)  # (N, C)
        chances = logits.sigmoid()
        each = (F.softplus(logits) - logits * chances).sum(1).mean()
        spread = sum(_joint_entropy(group) for group in chances.split(self.GROUP, dim=1))
        return (each - spread) / self.channels


class FiniteScalarQuantizer(Quantizer):
    """Each channel bounded and rounded to one of a few levels (FSQ, Mentzer et al. 2024); it has no weights.

    A latent lies in [-1, 1]; the token has the levels as its digits, the first channel the lowest.
    """

    levels: Tensor  # (C,)
    places: Tensor  # (C,)

    def __init__(self, levels: Sequence[int] = LEVELS):
        super().__init__()
        if not levels or min(levels) < 2 or math.prod(levels) >= 1 << 62:
            raise ValueError(f"FSQ needs two levels or more for each channel and int64 tokens, got {list(levels)}")
        self.features = self.channels = len(levels)
        self.codes = math.prod(levels)
        places = [math.prod(levels[:channel]) for channel in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(self, features: Tensor) -> Quantized:
        vectors = features.float().movedim(1, -1)  # (B, T, H, W, C)
        reach = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)  # an even number of levels has none at 0
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
    """The quantizer of that kind for latents of `channels` channels. Raises ValueError for an unknown kind or invalid
    options.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown quantizer {kind!r}: {', '.join(KINDS)}")
    if kind != "fsq":
        return KINDS[kind](channels, **options)
    made = FiniteScalarQuantizer(**options)
    if made.channels != channels:
        raise ValueError(f"FSQ has {made.channels} levels ({made.levels.tolist()}) for {channels} channels: one each")
    return made


def _joint_entropy(chances: Tensor) -> Tensor:
    """Entropy in nats of the mean over N of products of independent bits: (N, bits) probabilities of 1 to a scalar."""
    left, right = _products(chances[:, : (half := chances.shape[1] // 2)]), _products(chances[:, half:])
    mean = (left.T @ right / len(chances)).flatten()  # (2^bits,), computed without (N, 2^bits)
    return -(mean * mean.clamp(min=1e-30).log()).sum()  # the gradient of xlogy is NaN where a probability is 0


def _products(chances: Tensor) -> Tensor:
    """(N, bits) probabilities of 1 to those of every pattern of the bits, (N, 2^bits)."""
    found = chances.new_ones(len(chances), 1)
    for chance in chances.T:
        found = torch.cat([found * (1 - chance[:, None]), found * chance[:, None]], dim=1)
    return found
