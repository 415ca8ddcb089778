"""Diffusion samplers: from noise to latents, step by step, with a trained network.

All samplers see a network as (x_0, eps) at (x_t, t), whatever it predicts and on any path.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from train.objectives.masks import token_times
from train.objectives.objective import Objective
from train.objectives.paths import Point, broadcast_times
from train.sampling.guidance import Predict

Method = Literal["ddpm", "ddim", "euler", "heun", "euler_maruyama"]
Draw = Callable[[Tensor], Tensor]  # a tensor to noise of its shape, device and dtype
Estimate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (x_t, t) to (x_0, eps)


@dataclass(frozen=True)
class SamplerSettings:
    """Which sampler, and its options.

    ddpm: ancestral, through the posterior of x_s given x_t and x_0 (Ho et al. 2020). ddim: Song et al. 2021, `eta` from
    0 (no noise) to 1 (as ddpm). euler, heun: the probability flow dx/dt = velocity (Song et al. 2021; Heun as in Karras
    et al. 2022). euler_maruyama: the reverse SDE, whose noise is free to choose (SiT, Ma et al. 2024): `diffusion`
    "sigma" is `strength` x sigma(t), finite on every path; "reverse" is that of the forward process itself (Song et al.
    2021), only for paths that keep some data at t = 1.
    """

    method: Method = "euler"
    eta: float = 0.0
    diffusion: Literal["sigma", "reverse"] = "sigma"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"unknown sampler {self.method!r}: there are {', '.join(get_args(Method))}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta {self.eta!r}: from 0 to 1")
        if self.diffusion not in ("sigma", "reverse"):
            raise ValueError(f"unknown diffusion {self.diffusion!r}: there are sigma, reverse")
        if not self.strength >= 0:
            raise ValueError(f"strength {self.strength!r}: from 0 on")


@dataclass(frozen=True)
class SamplerStep:
    """One step of a sampler, from time `t` to the earlier `s` (both 0-d); `start` and `end` are their points on the
    path.
    """

    t: Tensor
    s: Tensor
    start: Point
    end: Point
    last: bool


@torch.no_grad()
def sample_latents(
    objective: Objective,
    predict: Predict,
    noise: Tensor,
    *,
    steps: int = 50,
    sampler: SamplerSettings | None = None,
    known: Tensor | None = None,
    clean: Tensor | None = None,
    tokens: int | None = None,
    generator: torch.Generator | None = None,
    draw: Draw | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """x_0 (B, C, T, H, W), or (B, N, C), from noise of that shape in float32 or wider. `predict` comes from `guided`.

    `known`, bool (B, T, H, W), (B, N) or broadcastable to it, holds those tokens at their value in `clean` (shaped like
    the noise) and at time 0; the network then gets times per token, else (B,), always in float32 or wider. Stochastic
    steps take their noise from `generator`, or from `draw` if given; `progress` is called with (steps done, all steps).
    Raises ValueError for `known` without `clean` or the reverse, for shapes that don't fit, and for a sampler that the
    path forbids.
    """
    sampler = sampler or SamplerSettings()
    draw = draw or functools.partial(gaussian_like, generator=generator)
    if (known is None) != (clean is None):
        raise ValueError("known tokens need both a mask and their clean values")
    if sampler.method == "euler_maruyama" and sampler.diffusion == "reverse" and objective.path.ends_in_noise:
        raise ValueError(f"the reverse SDE of path {objective.path.name} is infinite at t = 1: use diffusion sigma")
    if not noise.is_floating_point() or torch.finfo(noise.dtype).bits < 32:
        raise ValueError(f"noise in {noise.dtype}: sampling needs float32 or wider, whatever the network computes in")
    if known is not None and clean is not None:
        if clean.shape != noise.shape:
            raise ValueError(f"clean values of shape {tuple(clean.shape)} for noise of shape {tuple(noise.shape)}")
        grid = noise.shape[:-1] if noise.ndim == 3 else (len(noise), *noise.shape[2:])
        try:
            known = known.to(noise.device).expand(grid)
        except RuntimeError:
            raise ValueError(f"a mask of shape {tuple(known.shape)} for tokens of shape {tuple(grid)}") from None
        clean = clean.to(noise)

    def held(x: Tensor) -> Tensor:
        return x if known is None or clean is None else torch.where(broadcast_times(known, x), clean, x)

    def estimate_at(step: int) -> Estimate:
        def estimate(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            x = held(x)
            times = t.expand(len(x)) if known is None else token_times(t, known)
            return objective.clean_and_noise(predict(x, times.to(x.dtype), step).to(x.dtype), x, times)

        return estimate

    walk = objective.walk(steps, tokens).to(noise.device)
    advance, x = METHODS[sampler.method], noise
    for index, (t, s) in enumerate(pairwise(walk)):
        step = SamplerStep(t, s, objective.at(t, x), objective.at(s, x), last=index == steps - 1)
        x = held(advance(sampler, objective, estimate_at(index), x, step, draw))
        if progress:
            progress(index + 1, steps)
    return x


def ddpm(
    sampler: SamplerSettings,
    objective: Objective,
    estimate: Estimate,
    x: Tensor,
    step: SamplerStep,
    draw: Draw,
) -> Tensor:
    clean, _ = estimate(x, step.t)
    if step.last:
        return clean
    kept, variance = _forward(step)
    share = step.end.sigma.square() / step.start.sigma.square()
    mean = kept * share * x + step.end.alpha * (variance / step.start.sigma.square()) * clean
    return mean + (variance * share).sqrt() * draw(x)


def ddim(
    sampler: SamplerSettings,
    objective: Objective,
    estimate: Estimate,
    x: Tensor,
    step: SamplerStep,
    draw: Draw,
) -> Tensor:
    clean, eps = estimate(x, step.t)
    if step.last:
        return clean
    _, variance = _forward(step)
    fresh = sampler.eta * variance.sqrt() * step.end.sigma / step.start.sigma
    left = (step.end.sigma.square() - fresh.square()).clamp(min=0).sqrt()
    x = step.end.alpha * clean + left * eps
    return x + fresh * draw(x) if sampler.eta else x


def euler(
    sampler: SamplerSettings,
    objective: Objective,
    estimate: Estimate,
    x: Tensor,
    step: SamplerStep,
    draw: Draw,
) -> Tensor:
    clean, eps = estimate(x, step.t)
    if step.last:  # sigma's rate may be infinite at t = 0; x_0 itself is Euler's step on the linear path
        return clean
    return x + (step.s - step.t).to(x) * step.start.combine(clean, eps, "velocity")


def heun(
    sampler: SamplerSettings,
    objective: Objective,
    estimate: Estimate,
    x: Tensor,
    step: SamplerStep,
    draw: Draw,
) -> Tensor:
    clean, eps = estimate(x, step.t)
    if step.last:
        return clean
    length = (step.s - step.t).to(x)
    first = step.start.combine(clean, eps, "velocity")
    second = step.end.combine(*estimate(x + length * first, step.s), "velocity")
    return x + length * (first + second) / 2


def euler_maruyama(
    sampler: SamplerSettings,
    objective: Objective,
    estimate: Estimate,
    x: Tensor,
    step: SamplerStep,
    draw: Draw,
) -> Tensor:
    clean, eps = estimate(x, step.t)
    if step.last:
        return clean
    length, start = (step.t - step.s).to(x), step.start
    if sampler.diffusion == "sigma":
        diffusion = sampler.strength * start.sigma
    else:  # g^2 of the forward SDE with this alpha and sigma
        diffusion = 2 * start.sigma * start.determinant("velocity") / start.alpha
    drift = start.combine(clean, eps, "velocity") + diffusion / (2 * start.sigma) * eps
    return x - length * drift + (diffusion * length).sqrt() * draw(x)


METHODS = {"ddpm": ddpm, "ddim": ddim, "euler": euler, "heun": heun, "euler_maruyama": euler_maruyama}


def _forward(step: SamplerStep) -> tuple[Tensor, Tensor]:
    """(a, variance) with x_t given x_s ~ N(a x_s, variance), on any path; on a variance preserving one beta_t =
    variance.
    """
    kept = step.start.alpha / step.end.alpha
    variance = step.start.sigma.square() - (kept * step.end.sigma).square()
    return kept, variance.clamp(min=0)


def gaussian_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise drawn on the generator's device, so that a seed gives the same sample on every device."""
    device = generator.device if generator is not None else x.device
    return torch.randn(x.shape, dtype=x.dtype, device=device, generator=generator).to(x.device)
