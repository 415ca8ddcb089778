"""Compaction: few large files instead of many small ones, and a log that opens quickly."""

from __future__ import annotations

import json

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from curate.catalog import parquet
from curate.catalog.catalog import Catalog, join

SMALL_BYTES = 32 << 20
SMALL_FILES = 32  # so many small files are merged
TARGET_BYTES = 256 << 20
LOG_ENTRIES = 20  # so many commits since the last checkpoint get a new one


def compact(catalog: Catalog, name: str, table: DeltaTable) -> DeltaTable:
    """Merges the small files of a table where there are many; writes a checkpoint where the log is long.

    Files that no version of the last seven days needs are deleted with either (Delta's own rule); younger ones
    stay, so that time travel within a week works.
    """
    sizes = table.get_add_actions()["size_bytes"].to_pylist()
    merge = sum(size < SMALL_BYTES for size in sizes) >= SMALL_FILES
    if merge:
        try:
            table.optimize.compact(target_size=TARGET_BYTES, max_concurrent_tasks=2, writer_properties=parquet.CHECKED)
        except CommitFailedError:  # another run deleted rows meanwhile: the next run compacts
            table.update_incremental()
    long = table.version() - _checkpointed(catalog, name) >= LOG_ENTRIES
    if merge or long:
        table.vacuum(dry_run=False)
    if long:
        table.create_checkpoint()
    return table


def _checkpointed(catalog: Catalog, name: str) -> int:
    path = f"{join(catalog.path, name)}/_delta_log/_last_checkpoint"
    try:
        return json.loads(catalog.fs.cat_file(path))["version"]
    except FileNotFoundError:
        return 0
