"""Noise paths: x_t = alpha(t) x_0 + sigma(t) eps, with t = 0 clean and t = 1 noise, and what a network may predict.

Every prediction is c x_0 + d eps for some c(t), d(t). Together with x_t it gives two equations for x_0 and eps;
`clean_and_noise` solves them, and all conversions go through it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from models.settings.validation import CheckedSettings, ConfigError, from_0_to_below

PathName = Literal["linear", "cosine", "linear_beta"]
Prediction = Literal["eps", "v", "x0", "score", "velocity"]
PREDICTIONS: tuple[str, ...] = get_args(Prediction)
TINY = 1e-12  # least alpha and sigma: what is undefined at an end of the path is large there, never NaN


@dataclass(frozen=True)
class Point:
    """A path at given times. All tensors have the shape of t, or one that broadcasts against x_t (see
    `broadcast_times`).
    """

    alpha: Tensor
    sigma: Tensor
    alpha_rate: Tensor  # d alpha / dt
    sigma_rate: Tensor

    @property
    def snr(self) -> Tensor:
        return (self.alpha / self.sigma).square()

    def coefficients(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """c and d of a prediction c x_0 + d eps.

        eps: Ho et al. 2020. v: Salimans and Ho 2022. score, of x_t given x_0: Song et al. 2021. velocity, d x_t / dt:
        Lipman et al. 2023, Liu et al. 2023.
        """
        zero, one = torch.zeros_like(self.alpha), torch.ones_like(self.alpha)
        return {
            "eps": (zero, one),
            "v": (-self.sigma, self.alpha),
            "x0": (one, zero),
            "score": (zero, -1 / self.sigma),
            "velocity": (self.alpha_rate, self.sigma_rate),
        }[prediction]

    def determinant(self, prediction: Prediction) -> Tensor:
        """alpha d - sigma c of the two equations. The squared error of x_0 is (sigma / determinant)^2 that of the
        prediction.
        """
        c, d = self.coefficients(prediction)
        return self.alpha * d - self.sigma * c

    def clean_and_noise(self, output: Tensor, noised: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """(x_0, eps), each of the shape of x_t, from x_t and a prediction for it."""
        c, d = self.coefficients(prediction)
        determinant = self.determinant(prediction)
        clean = (d / determinant) * noised - (self.sigma / determinant) * output
        noise = (self.alpha / determinant) * output - (c / determinant) * noised
        return clean, noise

    def combine(self, clean: Tensor, noise: Tensor, prediction: Prediction) -> Tensor:
        """The prediction that belongs to x_0 and eps, each of the shape of x_t."""
        c, d = self.coefficients(prediction)
        return c * clean + d * noise


@dataclass(frozen=True)
class Path(CheckedSettings):
    """Which path, and its options.

    linear: the straight flow, alpha = 1 - t (Liu et al. 2023, Lipman et al. 2023). cosine: variance preserving, alpha =
    cos(pi t / 2), with the small `offset` at t = 0 of Nichol and Dhariwal 2021. linear_beta: variance preserving, beta
    from `beta_min` to `beta_max` per unit of time (Song et al. 2021), which is the schedule of Ho et al. 2020 (1e-4 to
    0.02 in 1,000 steps) in continuous time.
    """

    name: PathName = "linear"
    offset: float = 0.008
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        from_0_to_below(self, 1, "offset")
        if not 0 < self.beta_min <= self.beta_max:
            raise ConfigError(f"beta from {self.beta_min!r} to {self.beta_max!r}: above 0 and rising")

    @property
    def ends_in_noise(self) -> bool:
        """Whether alpha(1) = 0, so that nothing of the data is left."""
        return self.name != "linear_beta"

    @property
    def starts_smoothly(self) -> bool:
        """Whether sigma has a finite rate at t = 0."""
        return self.name == "linear" or (self.name == "cosine" and self.offset == 0)

    def at(self, t: Tensor) -> Point:
        """Times in [0, 1], of any shape, to alpha, sigma and their rates, of that shape and dtype."""
        rules = {"linear": self._linear, "cosine": self._cosine, "linear_beta": self._linear_beta}
        alpha, sigma, alpha_rate, sigma_rate = rules[self.name](t)
        return Point(alpha.clamp(min=TINY), sigma.clamp(min=TINY), alpha_rate, sigma_rate)

    def _linear(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)

    def _cosine(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        speed = math.pi / 2 / (1 + self.offset)
        start = speed * self.offset
        angle, scale = start + speed * t, math.cos(start)
        # 1 - cos^2(angle) / cos^2(start), written as a product, which keeps all digits where t is small
        sigma = ((speed * t).sin() * (angle + start).sin()).clamp(min=0).sqrt() / scale
        alpha_rate = -speed * angle.sin() / scale
        sigma_rate = speed * angle.cos() * (angle.sin() + TINY) / (sigma + TINY) / scale**2
        return angle.cos() / scale, sigma, alpha_rate, sigma_rate

    def _linear_beta(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        beta = self.beta_min + t * (self.beta_max - self.beta_min)
        total = t * (self.beta_min + beta) / 2  # integral of beta from 0 to t
        alpha = (-total / 2).exp()
        sigma = (-torch.expm1(-total)).sqrt()
        return alpha, sigma, -beta * alpha / 2, beta * alpha.square() / (2 * (sigma + TINY))


def broadcast_times(t: Tensor, x: Tensor) -> Tensor:
    """Times shaped so that they broadcast against x: (B, C, T, H, W), or tokens (B, N, C).

    t is one number (), one per sample (B,), or one per token: (B, T, H, W), in which T, H, W may each be 1, or (B, N).
    Raises ValueError for any other shape.
    """
    if t.ndim == 0:
        return t
    if t.ndim == 1 and t.shape[0] == x.shape[0]:
        return t.reshape(-1, *[1] * (x.ndim - 1))
    channel = -1 if x.ndim == 3 else 1
    if t.ndim == x.ndim - 1 and t.ndim > 1:
        wide = t.unsqueeze(channel)
        if all(a in (1, b) for a, b in zip(wide.shape, x.shape, strict=True)):
            return wide
    raise ValueError(f"times of shape {tuple(t.shape)} for x of shape {tuple(x.shape)}: one per sample or per token")
