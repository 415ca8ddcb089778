"""A small stand-in for a run: brings sources to a wanted version in batches, and can die at any commit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import zlib
from collections.abc import Mapping
from multiprocessing.process import BaseProcess

import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.catalog.schema import rows_to_table

BATCH = 3
MODULES = ["curate.catalog.ledger", "curate.catalog.views", "curate.run.verify", "pyarrow.parquet", "s3fs"]


def clips_of(key: str, version: str) -> int:
    """How many clips a source has at a version: 0 to 3."""
    return zlib.crc32(f"{key}{version}".encode()) // 1000 % 4


def rows_of(wanted: Mapping[str, str]) -> dict[str, pa.Table]:
    """Tables for sources at the wanted versions (source_id -> version)."""
    sources, clips, thumbnails = [], [], []
    for key, version in wanted.items():
        count = clips_of(key, version)
        sources.append({"source_id": key, "uri": key, "status": "done", "settings": version, "clips": count})
        for index in range(count):
            span = {
                "start_pts": index * 10,
                "end_pts": index * 10 + 10,
                "start_s": index / 1,
                "end_s": index + 1.0,
            }
            ids = {"clip_id": f"{key}-{index}", "source_id": key}
            clips.append(ids | span | {"versions": version})
            thumbnails.append(ids | {"jpeg": version.encode()})
    found = {"thumbnails": thumbnails, "clips": clips, "sources": sources}
    return {name: rows_to_table(name, rows) for name, rows in found.items()}


def work(uri: str, wanted: Mapping[str, str], compact: bool = True) -> None:
    """What a run does: everything that is not committed at its wanted version, in batches."""
    from curate.catalog.ledger import Ledger

    catalog = Catalog.open_or_create(uri)
    with Ledger(catalog, "sources", "source_id", run_id=f"run of {os.getpid()}") as ledger:
        known = {}
        for part in ledger.known():
            known.update(zip(part["source_id"].to_pylist(), part["settings"].to_pylist(), strict=True))
        pending = {key: version for key, version in wanted.items() if known.get(key) != version}
        keys = sorted(pending)
        for begin in range(0, len(keys), BATCH):
            batch = keys[begin : begin + BATCH]
            ledger.commit(rows_of({key: pending[key] for key in batch}), replace=set(batch) & set(known))
        if compact:
            ledger.compact()


def seen(uri: str) -> dict[str, tuple[str, int, int]]:
    """source_id -> (version, clips, thumbnails) as the views show it; AssertionError for a mixture."""
    from curate.catalog.views import connect

    with connect(Catalog.open(uri)) as sql:
        rows = sql.execute("""
            SELECT s.source_id, s.settings, count(DISTINCT c.clip_id), count(DISTINCT t.clip_id),
                count(*) FILTER (c.versions <> s.settings OR t.jpeg::VARCHAR <> s.settings)
            FROM sources s LEFT JOIN clips c USING (source_id)
            LEFT JOIN thumbnails t USING (clip_id) GROUP BY ALL""").fetchall()
        orphans = sql.execute("SELECT clip_id FROM clips ANTI JOIN sources USING (source_id)").fetchall()
        orphans += sql.execute("SELECT clip_id FROM thumbnails ANTI JOIN clips USING (clip_id)").fetchall()
    assert not orphans, orphans
    assert not [row for row in rows if row[4]], rows
    assert len(rows) == len({row[0] for row in rows}), rows
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def expected(wanted: Mapping[str, str]) -> dict[str, tuple[str, int, int]]:
    return {key: (v, clips_of(key, v), clips_of(key, v)) for key, v in wanted.items()}


def in_child(target, *args) -> BaseProcess:
    """Runs target(environment, *args) in a fresh process with the modules loaded and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    child = context.Process(target=target, args=(_store_environment(), *args))
    child.start()
    return child


def work_and_die(environment: dict[str, str], uri: str, wanted: dict[str, str], at: int, after: bool) -> None:
    """`work`, but kill -9 comes before or after the `at`th change to a Delta table (0: never)."""
    import curate.catalog.compaction
    from deltalake import DeltaTable
    from deltalake.table import TableMerger, TableOptimizer

    import curate.catalog.ledger

    os.environ.update(environment)
    curate.catalog.compaction.SMALL_FILES = 2  # so that every run compacts
    curate.catalog.compaction.LOG_ENTRIES = 3
    changes = 0

    def dying(change):
        def changed(*args, **kwargs):
            nonlocal changes
            changes += 1
            if changes == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = change(*args, **kwargs)
            if changes == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return changed

    curate.catalog.ledger.write_deltalake = dying(curate.catalog.ledger.write_deltalake)
    DeltaTable.delete = dying(DeltaTable.delete)
    DeltaTable.vacuum = dying(DeltaTable.vacuum)
    DeltaTable.create_checkpoint = dying(DeltaTable.create_checkpoint)
    TableMerger.execute = dying(TableMerger.execute)
    TableOptimizer.compact = dying(TableOptimizer.compact)
    work(uri, wanted)


def work_in_peace(environment: dict[str, str], uri: str, wanted: dict[str, str]) -> None:
    os.environ.update(environment)
    work(uri, wanted)


def _store_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
