"""The kernel distance: the squared maximum mean discrepancy under a cubic kernel (KID, Binkowski et al. 2018).

Unlike the Frechet distance its estimate is unbiased: few samples give a noisy figure, not a wrong one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from train.evaluation.features import FewSamples, check_features

FEW = 50  # samples; below, the spread of the estimate is as large as the distances usually compared


@dataclass(frozen=True)
class KernelDistance:
    """`value` may be slightly below 0 where there is no difference. `error` is the standard error of the mean over
    `subsets` of `size` samples; NaN for a single one.
    """

    value: float
    error: float
    subsets: int
    size: int


def kernel_distance(
    real: Tensor, made: Tensor, subsets: int = 100, size: int = 1000, generator: torch.Generator | None = None
) -> KernelDistance:
    """Distance of features (N, D) and (M, D) under k(x, y) = (x y / D + 1)^3: the mean over random `subsets` of `size`
    each, or over all at once where there are no more than `size`. `generator` is one of the CPU.

    Raises ValueError for fewer than two samples; warns (FewSamples) below 50.
    """
    real, made = check_features(real), check_features(made)
    if real.shape[1] != made.shape[1]:
        raise ValueError(f"features of {real.shape[1]} and of {made.shape[1]} numbers have no distance")
    fewest = min(len(real), len(made))
    if fewest < 2:
        raise ValueError(f"a kernel distance of {fewest} samples: at least two are needed")
    if fewest < FEW:
        warnings.warn(f"kernel distance of {fewest} samples: below {FEW} it is mostly noise", FewSamples, stacklevel=2)
    if max(len(real), len(made)) <= size:
        return KernelDistance(_squared(real, made), float("nan"), 1, fewest)
    size = min(size, fewest)
    values = torch.tensor(
        [
            _squared(*(each[torch.randperm(len(each), generator=generator)[:size]] for each in (real, made)))
            for _ in range(subsets)
        ],
        dtype=torch.float64,
    )
    error = float(values.std() / subsets**0.5) if subsets > 1 else float("nan")
    return KernelDistance(float(values.mean()), error, subsets, size)


def _squared(real: Tensor, made: Tensor) -> float:
    """The unbiased estimate: no sample is compared with itself (Gretton et al. 2012, eq. 3)."""
    within = sum(_off_diagonal(each) / (len(each) * (len(each) - 1)) for each in (real, made))
    return float(within - 2 * _kernel(real, made).mean())


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.T / one.shape[1] + 1) ** 3


def _off_diagonal(features: Tensor) -> Tensor:
    kernel = _kernel(features, features)
    return kernel.sum() - kernel.diagonal().sum()
