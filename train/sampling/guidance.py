"""Classifier-free guidance (Ho and Salimans 2022): sampling is steered away from the negative condition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.objectives.objective import Objective
from train.objectives.paths import broadcast_times

Predict = Callable[[Tensor, Tensor, int], Tensor]  # (x_t, times, step) to the network's output


@dataclass(frozen=True)
class Guidance:
    """`scale` 1 means no guidance. `low`: after the first `steady` steps, every second step uses the scale `low`,
    against saturation (oscillating guidance, Imagen Video, Ho et al. 2022). `threshold`: in each sample x_0 is clipped
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
    """Wraps a network called as network(x_t, t, **condition): negative + scale (conditional - negative), in all
    channels. As the weights sum to 1, the result is the same whichever prediction the network makes.

    `negative` replaces the conditions that it names: the text by the encoded empty prompt, as it was in training, or by
    a negative prompt. Raises ValueError where it is needed and missing, or names an unknown condition.
    """
    if negative is None and any(scale not in (1, None) for scale in (guidance.scale, guidance.low)):
        raise ValueError(f"guidance {guidance.scale} needs the empty or a negative prompt to guide away from")
    against = {**condition, **(negative or {})}
    if unknown := sorted(set(against) - set(condition)):
        raise ValueError(f"negative condition {', '.join(unknown)}: there are {', '.join(sorted(condition)) or 'none'}")

    def predict(x: Tensor, t: Tensor, step: int) -> Tensor:
        output = network(x, t, **condition).to(x.dtype)  # guided in float32, whatever the network computes in
        scale = guidance.scale_at(step)
        if scale != 1:
            other = network(x, t, **against).to(x.dtype)
            output = other + scale * (output - other)
        if guidance.threshold is None:
            return output
        point = objective.at(t, x)
        clean = point.clean_and_noise(output, x, objective.prediction)[0]
        clean = torch.where(broadcast_times(t, x) == 0, x, clean)  # given tokens are outside the network's own range
        clean = thresholded(clean, guidance.threshold, guidance.limit)
        return point.combine(clean, (x - point.alpha * clean) / point.sigma, objective.prediction)

    return predict


def thresholded(clean: Tensor, quantile: float, limit: float = 1.0) -> Tensor:
    """x_0 (B, ...) clipped to its `quantile` and scaled into [-limit, limit] where that is beyond (see `Guidance`)."""
    sizes = clean.abs().flatten(1)
    rank = max(1, math.ceil(quantile * sizes.shape[1]))
    bound = sizes.kthvalue(rank, dim=1).values.clamp(min=limit).reshape(-1, *[1] * (clean.ndim - 1))
    return clean.clamp(-bound, bound) * (limit / bound)
