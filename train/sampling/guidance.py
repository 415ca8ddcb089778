"""Classifier-free guidance (Ho and Salimans 2022): conditions dropped in training, stressed in sampling."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.objectives.objective import Objective
from train.objectives.paths import broadcast_times

Predict = Callable[[Tensor, Tensor, int], Tensor]  # (x_t, times, step) to the network's output


@dataclass(frozen=True)
class Guidance:
    """`scale` 1 is no guidance. `low`: after the first `steady` steps every second one is guided by `low` instead,
    against saturation (oscillating guidance, Imagen Video, Ho et al. 2022). `threshold`: per sample, x_0 is clipped
    to this quantile of its absolute values and scaled back to `limit`, if the quantile is beyond `limit` (dynamic
    thresholding, Imagen, Saharia et al. 2022); `limit` is in units of the latents, 1 for pixels.
    """

    scale: float = 1.0
    low: float | None = None
    steady: int = 0
    threshold: float | None = None
    limit: float = 1.0

    def __post_init__(self) -> None:
        for name in ("scale", "low"):
            if (value := getattr(self, name)) is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"guidance {name} {value!r}: a number from 0 on")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"guidance threshold {self.threshold!r}: a quantile, above 0 and at most 1")
        if not self.limit > 0:
            raise ValueError(f"guidance limit {self.limit!r}: above 0")

    def scale_at(self, step: int) -> float:
        """The scale of a step, counted from 0."""
        if self.low is None or step < self.steady or (step - self.steady) % 2:
            return self.scale
        return self.low


def guided(
    network: Callable[..., Tensor],
    objective: Objective,
    guidance: Guidance,
    condition: Mapping[str, Any],
    negative: Mapping[str, Any] | None = None,
) -> Predict:
    """A network called as network(x_t, t, **condition), guided: negative + scale (conditional - negative), in all
    channels. As the weights sum to 1, it is the same whichever prediction the network makes.

    `negative` replaces the conditions that it names: the text, by the encoded empty prompt as it was in training, or
    by a negative prompt. Raises ValueError where it is needed and missing, or names what is no condition.
    """
    if negative is None and any(scale not in (1, None) for scale in (guidance.scale, guidance.low)):
        raise ValueError(f"guidance {guidance.scale} needs the empty or a negative prompt to guide away from")
    against = {**condition, **(negative or {})}
    if unknown := sorted(set(against) - set(condition)):
        raise ValueError(f"negative condition {', '.join(unknown)}: there are {', '.join(sorted(condition)) or 'none'}")

    def predict(x: Tensor, t: Tensor, step: int) -> Tensor:
        output = network(x, t, **condition)
        scale = guidance.scale_at(step)
        if scale != 1:
            other = network(x, t, **against)
            output = other + scale * (output - other)
        if guidance.threshold is None:
            return output
        point = objective.at(t, x)
        clean = point.clean_and_noise(output, x, objective.prediction)[0]
        clean = torch.where(
            broadcast_times(t, x) == 0, x, clean
        )  # what is given says nothing of the network's own range
        clean = thresholded(clean, guidance.threshold, guidance.limit)
        return point.combine(clean, (x - point.alpha * clean) / point.sigma, objective.prediction)

    return predict


def thresholded(clean: Tensor, quantile: float, limit: float = 1.0) -> Tensor:
    """x_0 (B, ...) of any range into [-limit, limit] where its quantile is beyond (see `Guidance`), of that shape."""
    sizes = clean.abs().flatten(1)
    rank = max(1, math.ceil(quantile * sizes.shape[1]))
    bound = sizes.kthvalue(rank, dim=1).values.clamp(min=limit).reshape(-1, *[1] * (clean.ndim - 1))
    return clean.clamp(-bound, bound) * (limit / bound)


def dropped_conditions(seed: int, epoch: int, clip_ids: Sequence[str], rate: float, condition: str = "text") -> Tensor:
    """(B,) bool: whose condition is left out this time in training, each with probability `rate`.

    Keyed on seed, epoch, clip and condition: the same after a resume and on any number of ranks, another one in each
    epoch, independent between conditions.
    """
    keys = (f"{seed}/{epoch}/{condition}/{clip_id}".encode() for clip_id in clip_ids)
    draws = [int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64 for key in keys]
    return torch.tensor([draw < rate for draw in draws], dtype=torch.bool)
