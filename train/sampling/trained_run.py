"""Sampling from a trained run: prompts, guidance, given frames, longer video.

A run's `model/` folder is enough: the network (EMA weights) with, in its `extra`, the objective and the contract of
the latents it learned from, and beside it the encoded empty prompt. Texts come encoded and videos as latents; the
caller chooses the models that do that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from models.saved import transformer_files
from models.tensors import read_tensors
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer
from train.data.latents import channel_statistics
from train.devices.mixed_precision import autocast, compute_dtype
from train.objectives.masks import latents_mask
from train.objectives.objective import Objective
from train.run.run_folder import EMPTY_TEXT, MODEL
from train.sampling.autoregressive import known_from_context, sample_autoregressively
from train.sampling.diffusion_samplers import SamplerSettings, sample_latents
from train.sampling.guidance import Guidance, guided


@dataclass(frozen=True)
class SamplingSettings:
    """For continuous latents: `steps`, `sampler`, `guidance`. For tokens: `temperature`, `top_k` and the guidance's
    scale.
    """

    steps: int = 50
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    guidance: Guidance = field(default_factory=lambda: Guidance(4.0))
    temperature: float = 1.0
    top_k: int | None = None


@dataclass
class Prompt:
    """What one sample is made from. A seed gives the same sample whatever else is in the batch, except for rounding."""

    text: Tensor | None = None  # (L, D), encoded; None: the empty prompt
    negative: Tensor | None = None  # (L, D), to guide away from; None: the empty prompt
    conditions: Mapping[str, float] = field(default_factory=dict)  # those not named are unknown
    seed: int = 0


Progress = Callable[[int, int], None]  # called with (steps done, all steps)


@dataclass
class TrainedRun:
    """A network with what is needed to sample from it. Latents that come and go are as the VAE gives and takes them."""

    network: DiT | TokenTransformer
    objective: Objective
    contract: dict[str, Any]  # of stages/shards/contract.py, as JSON has it
    extra: dict[str, Any]
    empty: Tensor | None = None  # (L, D), the encoded empty prompt; None for a network without text
    dtype: torch.dtype = torch.float32  # of matrix products; a caller's own autocast goes before

    @property
    def tokens(self) -> bool:
        return isinstance(self.network, TokenTransformer)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def normalized(self, latents: Tensor) -> Tensor:
        """Latents (B, C, T, h, w) as the network sees them."""
        mean, std = channel_statistics(self.contract, latents.device)
        return (latents.float() - mean) / std

    def denormalized(self, latents: Tensor) -> Tensor:
        """Latents (B, C, T, h, w) as the VAE takes them."""
        mean, std = channel_statistics(self.contract, latents.device)
        return latents * std + mean

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[Prompt],
        shape: tuple[int, ...],
        settings: SamplingSettings | None = None,
        first: Tensor | None = None,
        last: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Latents (B, C, T, h, w) of the shape (C, T, h, w), or tokens (B, T, h, w) int64 of the shape (T, h, w).

        `first` and `last`, (1 or B, C, k, h, w) or tokens (1 or B, k, h, w), are given at the start and the end of
        each sample and stay as they are: one latent of a picture makes a video of it, more continue a clip, both
        together fill between. Tokens are made in order, so none can be given at their end.
        Raises ValueError for what doesn't fit the network or each other.
        """
        settings = settings or SamplingSettings()
        if not prompts:
            raise ValueError("no prompts: at least one sample")
        self._check(prompts)
        first, last = (
            None if each is None else each.expand(len(prompts), *each.shape[1:]).to(self.device)
            for each in (first, last)
        )
        with autocast(self.device, self.dtype) if self.dtype != torch.float32 else nullcontext():
            if isinstance(self.network, TokenTransformer):
                return self._sample_tokens(self.network, prompts, shape, settings, first, last)
            return self._sample_latents(self.network, prompts, shape, settings, first, last, progress)

    def sample_longer(
        self,
        prompts: Sequence[Prompt],
        shape: tuple[int, ...],
        clips: int,
        overlap: int,
        decode: Callable[[Tensor], Tensor],
        encode: Callable[[Tensor], Tensor],
        settings: SamplingSettings | None = None,
        first: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Tensor]:
        """Frames (B, 3, F, H, W) of clip after clip, each continuing from the last `overlap` frames of the one before
        (see train/sampling/autoregressive.py). `decode` and `encode` are the VAE's, of unscaled latents or of tokens.
        The seeds of later clips follow from the prompts'.
        """

        def make(index: int, context: Tensor | None) -> Tensor:
            numbered = [dataclasses.replace(each, seed=_clip_seed(each.seed, index)) for each in prompts]
            return self.sample(numbered, shape, settings, first if context is None else context, progress=progress)

        return sample_autoregressively(make, clips, overlap, decode, encode)

    def _sample_latents(
        self,
        network: DiT,
        prompts: Sequence[Prompt],
        shape: tuple[int, ...],
        settings: SamplingSettings,
        first: Tensor | None,
        last: Tensor | None,
        progress: Progress | None,
    ) -> Tensor:
        tokens = math.prod(network.grid((1, *shape)))
        known, clean = self._given(shape, first, last, len(prompts))
        # A stochastic sampler draws its noise for the whole batch: one sample at a time keeps the seeds independent.
        size = 1 if _is_stochastic(settings.sampler) else len(prompts)
        parts = []
        for start in range(0, len(prompts), size):
            own = prompts[start : start + size]
            generators = [torch.Generator().manual_seed(each.seed) for each in own]
            noise = torch.stack([torch.randn(shape, generator=each) for each in generators]).to(self.device)
            predict = guided(network, self.objective, settings.guidance, *self._conditions(own))
            found = sample_latents(
                self.objective,
                predict,
                noise,
                steps=settings.steps,
                sampler=settings.sampler,
                known=known,
                clean=None if clean is None else clean[start : start + size],
                tokens=tokens,
                generator=generators[0],
                progress=progress,
            )
            parts.append(self.denormalized(found))
        latents = torch.cat(parts)
        if first is not None:  # exactly as given, which normalizing there and back may change in the last digit
            latents[:, :, : first.shape[2]] = first
        if last is not None:
            latents[:, :, shape[1] - last.shape[2] :] = last
        return latents

    def _given(
        self, shape: tuple[int, ...], first: Tensor | None, last: Tensor | None, batch: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """The `known` (T, h, w) and `clean` (B, C, T, h, w) of `sample_latents`; None where nothing is given."""
        channels, frames, height, width = shape
        for name, latents in (("first", first), ("last", last)):
            if latents is None:
                continue
            if latents.ndim != 5 or (latents.shape[1], *latents.shape[3:]) != (channels, height, width):
                raise ValueError(
                    f"{name} latents of shape {tuple(latents.shape)} for samples of {tuple(shape)}: they must have "
                    "as many channels and be as high and wide"
                )
        if last is None:
            return (None, None) if first is None else known_from_context(self.normalized(first), frames)
        starts, ends = 0 if first is None else first.shape[2], last.shape[2]
        known = latents_mask((frames, height, width), first=starts, last=ends).to(self.device)
        clean = torch.zeros(batch, *shape, device=self.device)
        if first is not None:
            clean[:, :, :starts] = self.normalized(first)
        clean[:, :, frames - ends :] = self.normalized(last)
        return known, clean

    def _sample_tokens(
        self,
        network: TokenTransformer,
        prompts: Sequence[Prompt],
        shape: tuple[int, ...],
        settings: SamplingSettings,
        first: Tensor | None,
        last: Tensor | None,
    ) -> Tensor:
        if last is not None:
            raise ValueError("tokens are made one after another: none can be given at the end")
        frames, height, width = shape
        found = []
        for number, prompt in enumerate(prompts):
            condition, negative = self._conditions([prompt])
            found.append(
                network.generate(
                    (frames, height, width),
                    text=condition.get("text"),
                    text_mask=condition.get("text_mask"),
                    conditions=condition.get("conditions"),
                    negative=negative,
                    guidance=settings.guidance.scale,
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    given=None if first is None else first[number : number + 1],
                    generator=torch.Generator().manual_seed(prompt.seed),
                )
            )
        return torch.cat(found)

    def _conditions(self, prompts: Sequence[Prompt]) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """The network's conditions for the prompts, and those that replace them in the negative pass of guidance."""
        condition: dict[str, Tensor] = {}
        negative: dict[str, Tensor] | None = None
        if (empty := self.empty) is not None and self.network.settings.text_dim:
            texts = [empty if each.text is None else each.text for each in prompts]
            against = [empty if each.negative is None else each.negative for each in prompts]
            # Padded separately, so that neither's padding depends on the other.
            condition["text"], condition["text_mask"] = padded(texts, self.device)
            negative = dict(zip(("text", "text_mask"), padded(against, self.device), strict=True))
        if names := self.network.settings.conditions:
            rows = [[each.conditions.get(name, float("nan")) for name in names] for each in prompts]
            condition["conditions"] = torch.tensor(rows, dtype=torch.float32, device=self.device)
            if negative is None:  # there is no text to replace
                negative = {"conditions": torch.full_like(condition["conditions"], float("nan"))}
        return condition, negative

    def _check(self, prompts: Sequence[Prompt]) -> None:
        dim, names = self.network.settings.text_dim, self.network.settings.conditions
        if dim and self.empty is None:
            raise ValueError(f"the run's {EMPTY_TEXT} is missing, which a network with text needs")
        for prompt in prompts:
            for text in (prompt.text, prompt.negative):
                if text is not None and not dim:
                    raise ValueError("this network was trained without text: it takes no prompt")
                if text is not None and (text.ndim != 2 or text.shape[1] != dim):
                    raise ValueError(f"an encoded text of shape {tuple(text.shape)}: this network takes (L, {dim})")
            if unknown := sorted(set(prompt.conditions) - set(names)):
                known = ", ".join(names) or "none"
                raise ValueError(f"condition {', '.join(unknown)}: this network has {known}")


def load_run(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> TrainedRun:
    """The network of a run's folder, or of its `model` folder. `dtype` is that of matrix products; auto is bfloat16 on
    a GPU, as in training, and float32 on a CPU. Raises ValueError, in one line, for a folder without a network, or with
    one that is not a run's.
    """
    folder = Path(folder)
    model = folder / MODEL if (folder / MODEL).is_dir() else folder
    if not (model / transformer_files.CONFIG).is_file():
        raise ValueError(
            f"{folder} holds no trained network ({MODEL}/{transformer_files.CONFIG}): `clipmill train` writes it at "
            "each save"
        )
    network, extra = transformer_files.load(model, device)
    contract = extra.get("contract")
    if not isinstance(contract, Mapping):
        raise ValueError(f"{model} says no contract of its latents: it was not made by `clipmill train`")
    try:
        objective = Objective.from_dict(extra.get("objective") or {})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{model}: the objective is invalid: {error}") from error
    run = TrainedRun(network, objective, dict(contract), extra, _empty_text(model, device))
    run.dtype = compute_dtype(dtype, run.device)
    if isinstance(network, TokenTransformer):
        takes, has, what = network.settings.codes, contract.get("codebook"), "codes"
    else:
        takes, has, what = network.settings.channels, contract.get("channels"), "channels"
    if takes != has:
        raise ValueError(f"{model}: the network takes {takes} {what}, its contract says {has}")
    return run


def padded(texts: Sequence[Tensor], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Encoded texts, each (L_i, D), to (B, L, D) float32 padded with zeros, and their mask (B, L) bool."""
    length = max(len(each) for each in texts)
    found = torch.zeros(len(texts), length, texts[0].shape[1], device=device)
    mask = torch.zeros(len(texts), length, dtype=torch.bool, device=device)
    for row, text in enumerate(texts):
        found[row, : len(text)] = text.to(device)
        mask[row, : len(text)] = True
    return found, mask


def _empty_text(model: Path, device: str | torch.device) -> Tensor | None:
    if not (model / EMPTY_TEXT).exists():
        return None
    try:
        return read_tensors(model / EMPTY_TEXT)["text"].float().to(device)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{model / EMPTY_TEXT} can't be read: {str(error).splitlines()[0]}") from error


def _is_stochastic(sampler: SamplerSettings) -> bool:
    """Whether the sampler adds noise at its steps."""
    return sampler.method in ("ddpm", "euler_maruyama") or (sampler.method == "ddim" and sampler.eta > 0)


def _clip_seed(seed: int, index: int) -> int:
    """The seed of a later clip of a longer video; the first clip has the seed itself."""
    return (seed + index * 0x9E3779B9) % 2**63
