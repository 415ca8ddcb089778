"""The Frechet distance of Gaussians fitted to features: FID (Heusel et al. 2017), FVD (Unterthiner et al. 2019)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from train.evaluation.features import FewSamples, check_features


class Gaussian:
    """Mean and covariance of features (N, D) that come in parts, in float64 (Chan et al. 1979): no digits are lost to a
    large mean, and parts of several ranks can be joined.
    """

    def __init__(self, features: Tensor | None = None):
        self.count, self.mean, self.scatter = 0, torch.zeros(0), torch.zeros(0)
        if features is not None:
            self.add(features)

    def add(self, features: Tensor) -> None:
        """Adds features (N, D), N at least 1."""
        features = check_features(features).cpu()
        part = Gaussian()
        part.count, part.mean = len(features), features.mean(0)
        centred = features - part.mean
        part.scatter = centred.T @ centred
        self.join(part)

    def join(self, other: Gaussian) -> None:
        """Adds all features that the other Gaussian has seen. Raises ValueError for features of another size."""
        if not other.count:
            return
        if not self.count:
            self.count, self.mean, self.scatter = other.count, other.mean.clone(), other.scatter.clone()
            return
        if len(self.mean) != len(other.mean):
            raise ValueError(f"features of {len(other.mean)} numbers among those of {len(self.mean)}")
        total = self.count + other.count
        apart = other.mean - self.mean
        self.mean = self.mean + apart * (other.count / total)
        self.scatter = self.scatter + other.scatter + torch.outer(apart, apart) * (self.count * other.count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """(D, D), unbiased. Raises ValueError for fewer than two samples."""
        if self.count < 2:
            raise ValueError(f"a covariance of {self.count} samples: at least two are needed")
        return self.scatter / (self.count - 1)

    def distance(self, other: Gaussian) -> float:
        """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), at least 0.

        The root's trace comes from the eigenvalues of C1^1/2 C2 C1^1/2, which is symmetric: they are real, and those
        that rounding makes negative count as 0. Warns (FewSamples) where a covariance does not have full rank: the
        distance is then too large by an amount that depends on the number of samples.
        """
        if len(self.mean) != len(other.mean):
            raise ValueError(f"features of {len(self.mean)} and of {len(other.mean)} numbers have no distance")
        first, second = self.covariance, other.covariance
        if (fewest := min(self.count, other.count)) <= len(self.mean):
            warnings.warn(
                f"Frechet distance of {fewest} samples with {len(self.mean)} features: more samples than features are "
                "needed, and only distances of equally many samples compare",
                FewSamples,
                stacklevel=3,
            )
        values, vectors = torch.linalg.eigh(first)
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        inner = root @ second @ root
        overlap = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
        apart = (self.mean - other.mean).square().sum()
        return max(0.0, float(apart + first.trace() + second.trace() - 2 * overlap))


def frechet_distance(real: Tensor | Iterable[Tensor], made: Tensor | Iterable[Tensor]) -> float:
    """Distance of two sets of features, each (N, D) or batches of such. See `Gaussian.distance`."""
    fitted = []
    for features in (real, made):
        gaussian = Gaussian()
        for part in [features] if isinstance(features, Tensor) else features:
            gaussian.add(part)
        fitted.append(gaussian)
    return fitted[0].distance(fitted[1])
