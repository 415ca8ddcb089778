"""What the network learns: path x prediction x weighting x times. Published methods are settings of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor

from models.settings.validation import CheckedSettings, ConfigError
from train.objectives.paths import Path, Point, Prediction, broadcast_times
from train.objectives.times import TimeLaw

Weighting = Literal["uniform", "min_snr"]
MARGIN = 1e-3  # distance kept from an end of the path where a prediction is undefined (SiT, Ma et al. 2024)


@dataclass(frozen=True)
class Objective(CheckedSettings):
    """`weighting` of the squared error. uniform: of the network's own output, unweighted (of sigma x score, Song et al.
    2021, since the score itself grows without bound). min_snr: min(SNR, gamma) of the error in x_0, whatever is
    predicted (Hang et al. 2023).
    """

    path: Path = field(default_factory=Path)
    prediction: Prediction = "velocity"
    weighting: Weighting = "uniform"
    gamma: float = 5.0
    times: TimeLaw = field(default_factory=TimeLaw)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma > 0:
            raise ConfigError(f"gamma {self.gamma!r}: above 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON, where `path` and `times` may be a name in place of settings. Raises ConfigError."""
        named = {name: {"name": values[name]} for name in ("path", "times") if isinstance(values.get(name), str)}
        return super().from_dict({**values, **named})

    @property
    def earliest(self) -> float:
        """The least time trained on: 0, or just above where the velocity is infinite at 0."""
        return MARGIN if self.prediction == "velocity" and not self.path.starts_smoothly else 0.0

    @property
    def latest(self) -> float:
        """The greatest time: 1, or just below where pure noise would leave x_0 undetermined (Lin et al. 2024)."""
        return 1 - MARGIN if self.prediction in ("eps", "score") and self.path.ends_in_noise else 1.0

    def draw_times(self, batch: int, tokens: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """(B,) float32 random times, on the generator's device; `tokens` is the number of tokens of a sample."""
        device = generator.device if generator is not None else None
        u = torch.rand(batch, dtype=torch.float64, generator=generator, device=device)
        return self._within(self.times.quantile(u, tokens)).float()

    def validation_times(self, count: int = 10) -> Tensor:
        """(count,) float32 fixed, equidistant times; the loss at them tracks quality best (Esser et al. 2024)."""
        return self._within((torch.arange(count, dtype=torch.float64) + 0.5) / count).float()

    def walk(self, steps: int, tokens: int | None = None) -> Tensor:
        """(steps + 1,) float64 times of a sampler, from `latest` down to 0."""
        return self.latest * self.times.walk(steps, tokens)

    def noised(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of x_0 and eps, both (B, C, T, H, W) or (B, N, C), at times as `broadcast_times` takes them; x_0 itself
        at 0.
        """
        point = self.at(t, clean)
        return torch.where(broadcast_times(t, clean) == 0, clean, point.alpha * clean + point.sigma * noise)

    def target(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict for x_t, of its shape."""
        return self.at(t, clean).combine(clean, noise, self.prediction)

    def clean_and_noise(self, output: Tensor, noised: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(x_0, eps) according to the network's output for x_t, each of its shape."""
        return self.at(t, noised).clean_and_noise(output, noised, self.prediction)

    def convert(self, output: Tensor, noised: Tensor, t: Tensor, start: Prediction, end: Prediction) -> Tensor:
        """One kind of prediction for x_t to another, of the same shape."""
        point = self.at(t, noised)
        return point.combine(*point.clean_and_noise(output, noised, start), end)

    def loss(self, output: Tensor, clean: Tensor, noise: Tensor, t: Tensor, known: Tensor | None = None) -> Tensor:
        """(B,) weighted mean squared error of the network's output for x_t, in float32 or wider.

        Elements where `known` is true (bool, of the shapes that t may have) count for nothing: they were not noised.
        """
        dtype = torch.promote_types(output.dtype, torch.float32)
        output, clean, noise = output.to(dtype), clean.to(dtype), noise.to(dtype)
        point = self.at(t, clean)
        error = self.weight(point) * (output - point.combine(clean, noise, self.prediction)).square()
        if known is None:
            return error.flatten(1).mean(1)
        unknown = ~broadcast_times(known, error).expand_as(error)
        # torch.where, not a product, which would turn an infinite error into NaN.
        total = torch.where(unknown, error, 0).flatten(1).sum(1)
        return total / unknown.flatten(1).sum(1).clamp(min=1)

    def weight(self, point: Point) -> Tensor:
        """The weight of the squared error of the network's output, of the shape of the point's tensors."""
        if self.weighting == "min_snr":
            return point.snr.clamp(max=self.gamma) * (point.sigma / point.determinant(self.prediction)).square()
        return point.sigma.square() if self.prediction == "score" else torch.ones_like(point.sigma)

    def at(self, t: Tensor, x: Tensor) -> Point:
        """The path at times as `broadcast_times` takes them, on x's device; computed in float64, then rounded to x's
        dtype.
        """
        point = self.path.at(broadcast_times(t, x).to(x.device, torch.float64))
        dtype = torch.promote_types(x.dtype, torch.float32)
        return Point(*(getattr(point, each.name).to(dtype) for each in dataclasses.fields(Point)))

    def _within(self, t: Tensor) -> Tensor:
        return self.earliest + (self.latest - self.earliest) * t


PUBLISHED = {
    # Ho et al. 2020; DiT (Peebles and Xie 2023) without its learned variance
    "ddpm": Objective(Path("linear_beta"), "eps"),
    # Nichol and Dhariwal 2021, the simple loss
    "improved_ddpm": Objective(Path("cosine"), "eps"),
    # Song et al. 2021, the VP SDE
    "score_sde": Objective(Path("linear_beta"), "score"),
    # Hang et al. 2023
    "min_snr": Objective(Path("cosine"), "eps", "min_snr"),
    # Ho et al. 2022, after Salimans and Ho 2022
    "imagen_video": Objective(Path("cosine", offset=0.0), "v"),
    # Liu et al. 2023; SiT (Ma et al. 2024) with the linear interpolant
    "rectified_flow": Objective(Path("linear"), "velocity"),
    # Esser et al. 2024, as in Stable Diffusion 3
    "stable_diffusion_3": Objective(Path("linear"), "velocity", times=TimeLaw("logit_normal", shift=3.0)),
}
