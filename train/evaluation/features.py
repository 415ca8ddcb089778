"""Features of videos, by a network that is given: I3D for the Frechet video distance (Unterthiner et al. 2019),
Inception for pictures (Heusel et al. 2017), or any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Extractor = Callable[[Tensor], Tensor]  # a batch to its features (B, D)


class FewSamples(UserWarning):
    """A figure was computed, but of too few samples to be set beside others'."""


def extracted(extractor: Extractor, batches: Iterable[Tensor]) -> Tensor:
    """(N, D) float64 on the CPU: features of all that comes, a batch (B, ...) at a time.

    Raises ValueError where nothing comes and for features of another shape, or that are no numbers.
    """
    found = []
    with torch.inference_mode():
        for batch in batches:
            found.append(checked(extractor(batch), len(batch)).cpu())
    if not found:
        raise ValueError("nothing to take features of: no video came")
    return torch.cat(found)


def torchscript(path: str | Path, device: str | torch.device = "cpu", **options: Any) -> Extractor:
    """The network of a TorchScript file, called with `options` beside the batch: of the I3D and Inception files in
    common use `return_features=True` (I3D also `rescale=False, resize=True`) makes it give features, not classes.

    Such a file is a program: load none that you don't trust. Raises ValueError, in one line, where it can't be read.
    """
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is no TorchScript file: {str(error).strip().splitlines()[-1]}") from error
    return lambda batch: network(batch.to(device), **options)


def checked(features: Tensor, count: int | None = None) -> Tensor:
    """As float64 (N, D). Raises ValueError unless that is what they are, all finite."""
    if features.ndim != 2 or (count is not None and len(features) != count):
        rows = "N" if count is None else count
        raise ValueError(f"features of shape {tuple(features.shape)}: ({rows}, D) is needed, one row a sample")
    features = features.double()
    if bad := int((~features.isfinite()).any(1).sum()):
        raise ValueError(f"features of {bad} of {len(features)} samples are not finite")
    return features
