"""A small stand-in for a run: brings sources to a wanted version in batches, and can die at any change to the catalog.

A change is a Delta commit, a vacuum, or a data file that is put in its place or deleted.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.data_files import DataFile, FileWriter, with_schema
from curate.catalog.ledger import Ledger
from curate.catalog.schema import BASE, rows_to_table
from curate.catalog.table_files import Compaction
from stages.unit import Row
from tests.catalog_rows import write_files

BATCH = 3
TABLES = ("thumbnails", "clips", "sources")
MODULES = ["curate.catalog.ledger", "curate.catalog.views", "curate.run.verify", "pyarrow.parquet", "s3fs"]
SCHEMAS = {name: BASE[name] for name in TABLES}
OFTEN = Compaction(small_files=2)


def clips_of(key: str, version: str) -> int:
    """How many clips a source has at a version: 0 to 3."""
    return zlib.crc32(f"{key}{version}".encode()) // 1000 % 4


def rows_of(wanted: Mapping[str, str]) -> dict[str, list[Row]]:
    """Rows by table for sources at the wanted versions (source_id -> version)."""
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
    return {"thumbnails": thumbnails, "clips": clips, "sources": sources}


def files_of(ledger: Ledger, writer: FileWriter, wanted: Mapping[str, str]) -> list[DataFile]:
    """Files of sources at the wanted versions, as a writer makes them."""
    tables = {name: rows_to_table(name, rows) for name, rows in rows_of(wanted).items()}
    schemas = {name: ledger.schema(name).remove(0) for name in tables}
    return write_files(writer, {name: with_schema(rows, schemas[name]) for name, rows in tables.items()})


def commit(ledger: Ledger, wanted: Mapping[str, str], redone: bool = False) -> None:
    """Sources at the wanted versions, as one pass and in one commit."""
    ledger.commit(files_of(ledger, ledger.begin(SCHEMAS), wanted), redone)


def known_of(ledger: Ledger) -> dict[str, str]:
    """source_id -> version, as the ledger knows it; AssertionError for one that it names twice."""
    pairs = [
        pair
        for part in ledger.known()
        for pair in zip(part["source_id"].to_pylist(), part["settings"].to_pylist(), strict=True)
    ]
    assert len(pairs) == len(dict(pairs)), pairs
    return dict(pairs)


def open_ledger(uri: str, run_id: str | None = None, compaction: Compaction = OFTEN) -> Ledger:
    """A ledger of sources that compacts at every chance and retries at once."""
    run_id = run_id or uuid.uuid4().hex
    return Ledger(Catalog.open_or_create(uri), "sources", "source_id", run_id, compaction, pauses=(0, 0))


def work(uri: str, wanted: Mapping[str, str], maintain: bool = True) -> None:
    """What a run does: everything that is not committed at its wanted version, in batches."""
    with open_ledger(uri) as ledger:
        known = known_of(ledger)
        pending = sorted(key for key, version in wanted.items() if known.get(key) != version)
        writer = ledger.begin(SCHEMAS) if pending else None
        for start in range(0, len(pending), BATCH):
            batch = pending[start : start + BATCH]
            files = files_of(ledger, writer, {key: wanted[key] for key in batch})
            ledger.commit(files, redone=bool(set(batch) & set(known)))
        if maintain:
            ledger.maintain()


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


def in_child(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Runs target(environment, *args) in a fresh process with the modules loaded and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    child = context.Process(target=target, args=(_store_environment(), *args))
    child.start()
    return child


@contextmanager
def before_each_change(call: Callable[[str], None], after: Callable[[str], None] = lambda name: None) -> Iterator[None]:
    """Calls `call` with the name of every change to a Delta table or data file just before it, `after` just after."""
    from deltalake import DeltaTable
    from deltalake.table import TableAlterer

    import curate.catalog.catalog
    import curate.catalog.data_files

    def wrapped(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **kwargs: Any) -> Any:
            call(name)
            result = change(*args, **kwargs)
            after(name)
            return result

        return changed

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("create_write_transaction", "restore"):
            patch.setattr(DeltaTable, name, wrapped(name, getattr(DeltaTable, name)))
        vacuum, vacuumed = DeltaTable.vacuum, wrapped("vacuum", DeltaTable.vacuum)
        patch.setattr(DeltaTable, "vacuum", lambda *a, **k: (vacuum if k.get("dry_run", True) else vacuumed)(*a, **k))
        patch.setattr(DeltaTable, "create", wrapped("create", DeltaTable.create))
        patch.setattr(TableAlterer, "add_columns", wrapped("add_columns", TableAlterer.add_columns))
        patch.setattr(curate.catalog.data_files.os, "replace", wrapped("file", os.replace))
        delete = curate.catalog.catalog.Catalog.delete_file
        patch.setattr(curate.catalog.catalog.Catalog, "delete_file", wrapped("delete", delete))
        yield


def work_and_die(
    environment: dict[str, str], uri: str, wanted: dict[str, str], at: int, after: bool, files: bool = False
) -> None:
    """`work`, but kill -9 comes before or after the `at`th change to a Delta table, or to a data file (0: never)."""
    os.environ.update(environment)
    changes = 0

    def count(name: str) -> None:
        nonlocal changes
        changes += files == (name in ("file", "delete"))
        if changes == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)

    def die(name: str) -> None:
        if changes == at and files == (name in ("file", "delete")):
            os.kill(os.getpid(), signal.SIGKILL)

    with before_each_change(count, die):
        work(uri, wanted)


def work_in_peace(environment: dict[str, str], uri: str, wanted: dict[str, str]) -> None:
    os.environ.update(environment)
    work(uri, wanted)


def _store_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
