"""Distillation: fewer sampling steps from a trained network, as other training pairs (x_0, eps) for `Objective`.

Reflow: pairs joined by the teacher's flow, in place of independent ones; any times, the same loss. Progressive
distillation: at the student's own times, the (x_0, eps) that lead in one step to where the teacher arrives in two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.objectives.objective import Objective
from train.sampling.diffusion_samplers import SamplerSettings, sample_latents
from train.sampling.guidance import Predict


def reflow_pair(
    objective: Objective, predict: Predict, noise: Tensor, steps: int = 50, tokens: int | None = None
) -> tuple[Tensor, Tensor]:
    """(x_0, eps), each (B, C, T, H, W), joined by the teacher's flow (rectified flow, Liu et al. 2023)."""
    return sample_latents(objective, predict, noise, steps=steps, sampler=SamplerSettings("heun"), tokens=tokens), noise


def straightness(
    objective: Objective, predict: Predict, noise: Tensor, steps: int = 50, tokens: int | None = None
) -> float:
    """Mean squared distance, per element, of the velocity along the flow from its chord eps - x_0 (Liu et al. 2023).

    At 0, one step is as good as many. Raises ValueError on a path that is not straight.
    """
    if objective.path.name != "linear":
        raise ValueError(f"straightness is of the linear path, not of {objective.path.name}")
    velocities: list[Tensor] = []

    def watched(x: Tensor, t: Tensor, step: int) -> Tensor:
        output = predict(x, t, step)
        velocities.append(objective.convert(output.to(x.dtype), x, t, objective.prediction, "velocity"))
        return output

    clean = sample_latents(objective, watched, noise, steps=steps, sampler=SamplerSettings("euler"), tokens=tokens)
    walk = objective.walk(steps, tokens)
    lengths, chord = (walk[:-1] - walk[1:]).tolist(), (noise - clean) / walk[0].item()
    bends = [length * (chord - each).square().mean().item() for length, each in zip(lengths, velocities, strict=True)]
    return sum(bends) / walk[0].item()


@torch.no_grad()
def in_one_step(
    objective: Objective, predict: Predict, noised: Tensor, t: Tensor, middle: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """(x_0, eps), shaped like x_t, whose one DDIM step from t to `end` lands where the teacher's two steps do, by way
    of `middle`; alpha x_0 + sigma eps is x_t (Salimans and Ho 2022, algorithm 2). The times are (B,) or ().
    """
    x = noised
    for now, then in ((t, middle), (middle, end)):
        output = predict(x, now.to(x.dtype).expand(len(x)), 0)
        clean, eps = objective.clean_and_noise(output.to(x.dtype), x, now)
        point = objective.at(then, x)
        x = point.alpha * clean + point.sigma * eps
    start, finish = objective.at(t, x), objective.at(end, x)
    ratio = finish.sigma / start.sigma
    clean = (x - ratio * noised) / (finish.alpha - ratio * start.alpha)
    return clean, (noised - start.alpha * clean) / start.sigma


def progressive_pair(
    objective: Objective,
    predict: Predict,
    clean: Tensor,
    noise: Tensor,
    steps: int,
    tokens: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a student of `steps` steps trains on: (x_t, t, x_0, eps). The times t (B,) are drawn from its own steps, x_t
    is noised data, and x_0 and eps are the teacher's (see `in_one_step`). `generator` is one of the CPU.
    """
    walk = objective.walk(2 * steps, tokens)
    chosen = 2 * torch.randint(steps, (len(clean),), generator=generator)
    t, middle, end = (walk[chosen + offset].to(clean.device) for offset in range(3))
    noised = objective.noised(clean, noise, t)
    return noised, t, *in_one_step(objective, predict, noised, t, middle, end)
