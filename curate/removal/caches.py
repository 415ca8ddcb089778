"""Caches that hold what is purged: answers about clips in the catalog, pieces of shards on this machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from curate.catalog.catalog import Catalog
from curate.removal.plan import Plan, files_of
from curate.storage import shard_cache
from models.files import PART
from stages.captions.answer_cache import FOLDER as ANSWERS


def answers_of(catalog: Catalog, clips: Collection[str]) -> list[str]:
    """The paths of cached answers about clips, and of unfinished files beside them."""
    paths = files_of(catalog, ANSWERS)
    return [p for p in paths if p.endswith(PART) or p.rpartition("/")[2].removesuffix(".json") in clips]


def cache_folders(others: Iterable[str]) -> list[Path]:
    """Where loaders keep pieces of remote shards: the usual folder, and others."""
    return list(dict.fromkeys([shard_cache(), *(Path(other).expanduser().absolute() for other in others)]))


def pieces_of(folders: Iterable[Path], hashes: Collection[str]) -> list[Path]:
    """Pieces of shards with these hashes."""
    there = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return sorted(path for path in there if path.name.partition("-")[0] in hashes)


def empty_caches(catalog: Catalog, plan: Plan, folders: Iterable[Path], hashes: Collection[str]) -> dict[str, int]:
    """Deletes both; how many files of each."""
    answers, pieces = answers_of(catalog, plan.clip_ids), pieces_of(folders, hashes)
    for path in answers:
        with suppress(FileNotFoundError):
            catalog.fs.rm_file(path)
    for piece in pieces:
        piece.unlink(missing_ok=True)
    return {"answers": len(answers), "pieces of shards": len(pieces)}
