"""Shards that hold purged clips: found by their indexes, written anew without them, and deleted in the end."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from curate.catalog.catalog import Catalog
from curate.errors import DamagedError, UserError
from curate.progress_bar import ProgressBar
from curate.removal.plan import Plan, PurgedClip, files_of
from curate.shards.inventory import FOLDER
from curate.storage import join
from stages.scan.purged import Purged
from stages.shards.folder import WriteError
from stages.shards.format import ShardError, index_path, read_index
from stages.shards.rewrite import infos, without_clips

if TYPE_CHECKING:
    import duckdb

READERS = 8  # indexes that are read at once
MOVED = ("shard", "hash", "bytes", "index_hash")  # of what takes a shard's place
PART = ".part"


def indexes(catalog: Catalog) -> Iterator[tuple[str, set[str]]]:
    """(path of a shard relative to the catalog, ids of its clips) of every index there is."""
    paths = [path for path in files_of(catalog, FOLDER) if path.endswith(".parquet")]
    with ThreadPoolExecutor(READERS) as pool, ProgressBar("purge", len(paths), "shards") as progress:
        for number, (path, clips) in enumerate(
            zip(paths, pool.map(lambda p: _clips(catalog, p), paths), strict=True), 1
        ):
            yield posixpath.relpath(path, catalog.path).removesuffix(".parquet") + ".tar", clips
            progress.update(number)


def _clips(catalog: Catalog, path: str) -> set[str]:
    relative = posixpath.relpath(path, catalog.path)
    try:
        return set(read_index(join(catalog.uri, relative))["clip_id"].to_pylist())
    except ShardError as error:
        raise DamagedError(f"{error}: it may hold purged clips; mend it or delete it, then purge again") from error


def move_clips(catalog: Catalog, sql: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Publishes every shard that holds purged clips anew without them; fills `moved` and `stale` of the plan.

    A shard may hold clips that no row names any more, cut otherwise or encoded again since: the source and span of
    each stand in its JSON.
    """
    if plan.moved is not None:
        return
    known = {clip for (clip,) in sql.execute("SELECT clip_id FROM raw.clips").fetchall()}
    named, moved, stale = plan.clip_ids, dict[str, dict[str, Any] | None](), set[str]()
    for shard, clips in list(indexes(catalog)):
        path = join(catalog.uri, shard)
        try:
            unknown = clips - known - named
            gone = (clips & named) | set(_purged(plan, infos(path, unknown) if unknown else {}))
            if not gone:
                continue
            folder = join(catalog.uri, *shard.split("/")[:2])
            made = without_clips(path, folder, gone)
        except WriteError as error:  # the shard is whole; the disk is full, say
            raise UserError(f"{error}; then `clipmill purge` goes on") from error
        except ShardError as error:
            if not catalog.fs.exists(join(catalog.path, shard)):  # its tar was never published
                catalog.fs.rm_file(join(catalog.path, index_path(shard)))
                continue
            raise DamagedError(f"{error}: mend it or delete it, then purge again") from error
        stale |= gone - named
        moved[shard] = asdict(made) | {"shard": join(*shard.split("/")[:2], made.shard)} if made is not None else None
    plan.move(moved, stale)


def _purged(plan: Plan, said: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The clips, of those that JSON says something of, which are of purged sources or share time with purged clips."""
    for clip, info in said.items():
        source, start = info.get("source_id"), info.get("start_s")
        if (
            source in plan.source_ids
            or info.get("uri") in plan.uris
            or (start is not None and _overlaps(plan.by_source.get(source or "", ()), start, _end(info)))
        ):
            yield clip


def _end(info: Mapping[str, Any]) -> float:
    """Where the window of a sample ends: its frames' times, the first of which is its start."""
    pts, base = info.get("pts") or [0], info.get("time_base") or [1, 1]
    return float(info["start_s"] + (pts[-1] - pts[0]) * base[0] / base[1])


def _overlaps(clips: Collection[PurgedClip], start: float, end: float) -> bool:
    return Purged.overlap([(clip.start_s, clip.end_s) for clip in clips], start, end)


def delete_moved(catalog: Catalog, plan: Plan) -> int:
    """Deletes the shards that hold purged clips, and unfinished files of killed runs; how many files."""
    paths = {join(catalog.path, path) for shard in plan.moved or () for path in (shard, index_path(shard))}
    paths |= {path for path in files_of(catalog, FOLDER) if path.endswith(PART)}
    deleted = 0
    for path in sorted(paths):
        with suppress(FileNotFoundError):
            catalog.fs.rm_file(path)
            deleted += 1
    return deleted
