"""What a network learns from a batch: to predict noised latents (dit), or each token from those before it (tokens)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.settings.validation import ConfigError
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer
from train.config.training import TrainConfig
from train.data.batches import MicroBatch, TrainingData
from train.data.latents import KeyedGenerators, gaussian_noise, normalized
from train.objectives.masks import draw_masks, token_times
from train.objectives.objective import PUBLISHED, Objective


@dataclass(frozen=True)
class Drawn:
    """What is drawn for the clips of a micro-batch, on its device; noise is made from its generators when needed."""

    t: Tensor  # (B,)
    known: Tensor | None  # (B, T, H, W) bool, latents that are given clean
    kept: Tensor | None  # (B, n) tokens that are not dropped after the mixer
    posterior: list[torch.Generator] | None  # one for each clip; None: the mean
    noise: list[torch.Generator]


class Task(Protocol):
    """`module` is the network as it is called in training (compiled, wrapped for several ranks)."""

    def draw(self, part: MicroBatch, step: int, places: Sequence[int]) -> Drawn | None:
        """The draws of a step, counted from 0. `places` are the clips' positions in the global batch, which key them
        together with the step.
        """

    def losses(self, module: nn.Module, part: MicroBatch, drawn: Drawn | None) -> Tensor:
        """(B,) float32 with their graph."""

    def validation_names(self, count: int) -> list[str]:
        """Names of the rows of `validation_losses`."""

    def validation_losses(self, module: nn.Module, part: MicroBatch, count: int) -> Tensor:
        """(`count`, B), or (1, B) where nothing is noised: the same numbers each time for the same weights."""

    def tokens(self, shape: tuple[int, ...]) -> int:
        """The network's tokens for one sample of latents (B, C, T, H, W), or of tokens (B, T, H, W)."""

    def flops(self, shape: tuple[int, ...], text_tokens: int) -> float:
        """FLOPs of a training step: a forward pass and a backward pass of twice as many. What activation checkpointing
        computes again does not count (MFU as in PaLM, Chowdhery et al. 2022).
        """


def task_for(config: TrainConfig, network: DiT | TokenTransformer, data: TrainingData, device: torch.device) -> Task:
    if isinstance(network, TokenTransformer):
        return NextToken(network)
    return Denoising(config, network, data, device)


def objective_from(config: TrainConfig) -> Objective:
    """The config's objective, by name or by settings. Raises ConfigError for an unknown one."""
    if isinstance(config.objective, str):
        if config.objective not in PUBLISHED:
            raise ConfigError(f"objective {config.objective!r}: there are {', '.join(PUBLISHED)}, or its settings")
        return PUBLISHED[config.objective]
    try:
        return Objective.from_dict(config.objective)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"objective: {error}") from error


class Denoising:
    """Predict what `Objective` asks for from noised, normalized latents; with `masks`, some latents are given clean."""

    def __init__(self, config: TrainConfig, network: DiT, data: TrainingData, device: torch.device):
        self.config, self.network, self.contract = config, network, data.contract
        self.objective, self.generators = objective_from(config), KeyedGenerators(config.seed, device)
        frames, height, width = network.settings.patch
        self.masks = {kind: rate for kind, rate in config.conditions.masks.items() if rate}
        if self.masks and (frames != 1 or height != width):
            raise ConfigError(
                f"conditions.masks with model.patch {list(network.settings.patch)}: masks need patches of one latent "
                "in time, as high as wide"
            )

    def draw(self, part: MicroBatch, step: int, places: Sequence[int]) -> Drawn:
        mean = part.latents["mean"]  # (B, C, T, H, W)
        sampled = self.config.conditions.posterior == "sample"
        own = [self.generators("times", step, place, cpu=True) for place in places]
        t = torch.cat([self.objective.draw_times(1, self.tokens(mean.shape), each) for each in own]).to(mean.device)
        known = kept = None
        if self.masks:
            _, _, frames, height, width = mean.shape
            patch = self.network.settings.patch[1]
            known = torch.cat([draw_masks(1, (frames, height, width), self.masks, each, patch) for each in own])
            known = known.to(mean.device)
        if self.network.settings.mask_ratio:
            drawn = [self.network.draw_kept((1, *mean.shape[1:]), each) for each in own]
            rows = [row for row in drawn if row is not None]
            kept = torch.cat(rows).to(mean.device) if rows else None
        posterior = [self.generators("posterior", step, place) for place in places] if sampled else None
        return Drawn(t, known, kept, posterior, [self.generators("noise", step, place) for place in places])

    def losses(self, module: nn.Module, part: MicroBatch, drawn: Drawn | None) -> Tensor:
        assert drawn is not None, "`draw` gives the draws"
        clean = normalized(part.latents, self.contract, drawn.posterior)  # (B, C, T, H, W)
        noise = gaussian_noise(clean, drawn.noise)
        return self._losses(module, part, clean, noise, drawn.t, drawn.known, drawn.kept)

    def validation_names(self, count: int) -> list[str]:
        return [f"{float(t):.3f}" for t in self.objective.validation_times(count)]

    def validation_losses(self, module: nn.Module, part: MicroBatch, count: int) -> Tensor:
        clean = normalized(part.latents, self.contract, None)
        found = []
        for index, t in enumerate(self.objective.validation_times(count)):
            noise = gaussian_noise(clean, [self.generators("validation", index, each) for each in part.clip_ids])
            times = t.to(clean.device).expand(len(clean))
            found.append(self._losses(module, part, clean, noise, times, None, None))
        return torch.stack(found)

    def tokens(self, shape: tuple[int, ...]) -> int:
        return math.prod(self.network.grid(shape))

    def flops(self, shape: tuple[int, ...], text_tokens: int) -> float:
        ratio = self.network.settings.mask_ratio
        kept = max(1, round(self.tokens(shape) * (1 - ratio))) if ratio else None
        return 3.0 * self.network.flops(shape, text_tokens, kept)

    def _losses(
        self,
        module: nn.Module,
        part: MicroBatch,
        clean: Tensor,
        noise: Tensor,
        t: Tensor,
        known: Tensor | None,
        kept: Tensor | None,
    ) -> Tensor:
        """(B,) losses; `known` latents (B, T, H, W) are given clean, `kept` (B, n) are the tokens not dropped."""
        times = t if known is None else token_times(t, known)  # (B,), or (B, T, H, W)
        noised = self.objective.noised(clean, noise, times)
        given: dict[str, Any] = {} if kept is None else {"kept": kept}
        if known is not None:
            given["known"] = known
        output = module(noised, t, **part.condition, **given)
        uncounted = known
        if kept is not None:
            lost = self.network.dropped_mask(kept, clean.shape)
            uncounted = lost if known is None else lost | known
        return self.objective.loss(output, clean, noise, times, uncounted)


class NextToken:
    """Predict each token from those before it: mean negative log-likelihood in nats (VideoGPT, Yan et al. 2021)."""

    def __init__(self, network: TokenTransformer):
        self.network = network

    def draw(self, part: MicroBatch, step: int, places: Sequence[int]) -> None:
        """Nothing is drawn."""

    def losses(self, module: nn.Module, part: MicroBatch, drawn: Drawn | None) -> Tensor:
        tokens = part.latents["tokens"]  # (B, T, H, W)
        return self.network.loss(module(tokens, **part.condition), tokens)

    def validation_names(self, count: int) -> list[str]:
        return ["nats_per_token"]

    def validation_losses(self, module: nn.Module, part: MicroBatch, count: int) -> Tensor:
        return self.losses(module, part, None)[None]

    def tokens(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[1:])

    def flops(self, shape: tuple[int, ...], text_tokens: int) -> float:
        return 3.0 * self.network.flops(shape, text_tokens)
