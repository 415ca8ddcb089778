"""Batches of latents for a trainer: `from curate.loader import Loader`. Needs only torch, numpy and pyarrow."""

from curate.loader.batch import Batch
from curate.loader.errors import BadSample
from curate.loader.iterable import LatentBatches
from curate.loader.loader import Loader

__all__ = ["BadSample", "Batch", "LatentBatches", "Loader"]
