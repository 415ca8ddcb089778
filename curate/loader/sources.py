"""Where a dataset's shards are read from: this machine's disks, or a store through a local cache."""

from __future__ import annotations

from curate.datasets.files import Dataset
from curate.loader.samples import Source
from curate.loader.shards import LocalShards
from curate.storage import is_local, local_path

LOCAL_THREADS, REMOTE_THREADS = 2, 16  # a store answers late, and many at once


def open_source(dataset: Dataset, root: str | None, cache: str | None, cache_gb: float) -> tuple[Source, int]:
    """The source, and how many threads to read it with. UserError where shards are missing."""
    root = root or dataset.root
    if is_local(root):
        return LocalShards(local_path(root), dataset.shards), LOCAL_THREADS
    from curate.loader.cache import CachedShards

    return CachedShards(root, dataset.shards, cache, cache_gb), REMOTE_THREADS
