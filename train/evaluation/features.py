"""Features of videos from a given network: I3D for the Frechet video distance (Unterthiner et al. 2019), Inception for
pictures (Heusel et al. 2017), or any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Extractor = Callable[[Tensor], Tensor]  # a batch (B, ...) to its features (B, D)


class FewSamples(UserWarning):
    """A figure was computed from too few samples to be compared with others."""


def extracted(extractor: Extractor, batches: Iterable[Tensor]) -> Tensor:
    """(N, D) float64 on the CPU: features of all batches (B, ...), one batch at a time.

    Raises ValueError without any batch, and for features of another shape or that are not finite.
    """
    found = []
    with torch.inference_mode():
        for batch in batches:
            found.append(check_features(extractor(batch), len(batch)).cpu())
    if not found:
        raise ValueError("nothing to take features of: there is no batch")
    return torch.cat(found)


def torchscript(path: str | Path, device: str | torch.device = "cpu", **options: Any) -> Extractor:
    """The network of a TorchScript file, called with `options` beside the batch. The I3D and Inception files in common
    use give features, not classes, with `return_features=True` (I3D also needs `rescale=False, resize=True`).

    Such a file is a program: load none that you don't trust. Raises ValueError, in one line, where it can't be read.
    """
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is no TorchScript file: {str(error).strip().splitlines()[-1]}") from error
    return lambda batch: network(batch.to(device), **options)


def check_features(features: Tensor, count: int | None = None) -> Tensor:
    """Features as float64 (N, D). Raises ValueError unless they have that shape and are finite."""
    if features.ndim != 2 or (count is not None and len(features) != count):
        rows = "N" if count is None else count
        raise ValueError(f"features of shape {tuple(features.shape)}: ({rows}, D) is needed, one row a sample")
    features = features.double()
    if bad := int((~features.isfinite()).any(1).sum()):
        raise ValueError(f"features of {bad} of {len(features)} samples are not finite")
    return features
