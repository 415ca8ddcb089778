"""Latents for a trainer, by torch, numpy and pyarrow alone: `from curate.loader import Loader`."""

from curate.loader.batch import Batch
from curate.loader.errors import BadSample
from curate.loader.iterable import LatentBatches
from curate.loader.loader import Loader

__all__ = ["BadSample", "Batch", "LatentBatches", "Loader"]
