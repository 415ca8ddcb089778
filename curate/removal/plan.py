"""The plan of a purge: a file in the catalog, written first and deleted last, so that a killed purge goes on.

It is the only file that names what goes, by its ids and URIs. What remains is the record, which has digests.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from curate.catalog.catalog import Catalog
from curate.errors import DamagedError
from curate.storage import join
from models.files import PART

FOLDER = "_removals"  # in the catalog: the records, and the plan of a purge that is under way
PLAN = ".plan.json"


@dataclass(frozen=True)
class PurgedSource:
    """A source of which nothing stays. `uri` is the known one, `place` where it lies now."""

    source_id: str
    uri: str
    place: str
    content_hash: str | None
    bytes: int | None


@dataclass(frozen=True)
class PurgedClip:
    """A clip that goes. Of a source that stays, its span and the source's content are remembered."""

    clip_id: str
    source_id: str
    start_s: float
    end_s: float
    content_hash: str | None = None
    bytes: int | None = None


@dataclass
class Plan:
    """What a purge takes out, and what it has done so far.

    `named` are ids and content hashes of a list that the catalog does not hold. `moved` are shards, by path, that hold
    purged clips, and what takes their place (None: nothing), known once those are published; `stale` clips that only
    such shards still held. `datasets` is what the record says of datasets, `done` of everything else.
    """

    sources: list[PurgedSource]
    clips: list[PurgedClip]
    named: list[str] = field(default_factory=list)
    removal_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    began: str = field(default_factory=lambda: now().isoformat(timespec="seconds"))
    moved: dict[str, dict[str, Any] | None] | None = None
    stale: list[str] = field(default_factory=list)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    done: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def source_ids(self) -> frozenset[str]:
        return frozenset(source.source_id for source in self.sources)

    @cached_property
    def clip_ids(self) -> frozenset[str]:
        """Of the clips in the catalog, and of those that only shards held."""
        return frozenset([*(clip.clip_id for clip in self.clips), *self.stale])

    def move(self, moved: dict[str, dict[str, Any] | None], stale: Iterable[str]) -> None:
        """Notes what was published in place of which shards, and the clips that only those held."""
        self.moved, self.stale = moved, sorted(stale)
        self.__dict__.pop("clip_ids", None)

    @cached_property
    def uris(self) -> frozenset[str]:
        return frozenset(uri for source in self.sources for uri in (source.uri, source.place))

    @cached_property
    def by_source(self) -> dict[str, list[PurgedClip]]:
        """The clips of sources that stay, by source."""
        found: dict[str, list[PurgedClip]] = {}
        for clip in self.clips:
            if clip.source_id not in self.source_ids:
                found.setdefault(clip.source_id, []).append(clip)
        return found

    @property
    def name(self) -> str:
        return join(FOLDER, f"{self.removal_id}{PLAN}")

    def save(self, catalog: Catalog) -> None:
        catalog.put_file(self.name, json.dumps(asdict(self)))

    def delete(self, catalog: Catalog) -> None:
        with suppress(FileNotFoundError):
            catalog.fs.rm_file(join(catalog.path, self.name))


def unfinished(catalog: Catalog) -> Plan | None:
    """The plan of a purge that is under way, or was killed. DamagedError for one that can't be read."""
    for path in files_of(catalog, FOLDER):
        if path.endswith(PLAN):
            try:
                return _plan(json.loads(catalog.fs.cat_file(path)))
            except (ValueError, TypeError, KeyError) as error:
                raise DamagedError(f"{path} is no plan of a purge ({error}): purge again, then delete it") from error
    return None


def _plan(found: Mapping[str, Any]) -> Plan:
    sources = [PurgedSource(**source) for source in found["sources"]]
    clips = [PurgedClip(**clip) for clip in found["clips"]]
    return Plan(**{**found, "sources": sources, "clips": clips})


def files_of(catalog: Catalog, folder: str) -> list[str]:
    """The paths of all files below a folder of the catalog."""
    try:
        return sorted(catalog.fs.find(join(catalog.path, folder)))
    except FileNotFoundError:
        return []


def remove_unfinished(catalog: Catalog, folder: str) -> int:
    """Deletes what killed processes left of files below a folder of the catalog; how many. While nobody writes."""
    left = [path for path in files_of(catalog, folder) if path.endswith(PART) and "/." in path]
    for path in left:
        catalog.fs.rm_file(path)
    return len(left)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
