"""Batches of latents for a trainer: `from curate.loader import Loader`. Needs only torch, numpy and pyarrow.

Their order (`order`, `populations`, `draw_counts`) can be computed without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.loader.batch import Batch
    from curate.loader.errors import BadSample
    from curate.loader.iterable import LatentBatches
    from curate.loader.loader import Loader

__all__ = ["BadSample", "Batch", "LatentBatches", "Loader"]

_MODULES = {"BadSample": "errors", "Batch": "batch", "LatentBatches": "iterable", "Loader": "loader"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
