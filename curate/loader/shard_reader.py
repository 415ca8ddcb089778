"""What reads the bytes of shards for a loader: from local disks, or from a store through a local cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from curate.datasets.files import Dataset
from curate.loader.local_shards import LocalShards, Span
from curate.storage import is_local, local_path


class ShardReader(Protocol):
    """Reads shards of a dataset, by their numbers."""

    @property
    def threads(self) -> int:
        """How many threads read at a time, unless the user says otherwise."""

    def read(self, shard: int, spans: Sequence[Span]) -> None:
        """Fills the spans. OSError or EOFError if they can't be read."""

    def forget(self, shard: int, spans: Sequence[Span]) -> bool:
        """Drops cached copies of these spans; whether reading again may give other bytes."""


def open_shards(dataset: Dataset, root: str | None, cache: str | None, cache_gb: float) -> ShardReader:
    """The reader for `root` (None: the root in the dataset). UserError if shards are missing."""
    root = root or dataset.root
    if is_local(root):
        return LocalShards(local_path(root), dataset.shards)
    from curate.loader.cached_shards import CachedShards

    return CachedShards(root, dataset.shards, cache, cache_gb)
