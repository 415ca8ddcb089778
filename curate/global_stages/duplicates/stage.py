"""The stage `duplicates`: finds duplicates among all committed clips; see docs/duplicates.md.

Duplicates are links between clips, and a component is all clips that links join. In each component the best clip is
kept (a source that is there, largest picture, best score, a caption, smallest id), and its cluster is the clips that
are duplicates of it; the best of the rest is kept too, and so on. The result follows from the set of clips, and of the
sources that are there, alone, so order, retries and the number of runs change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import ClassVar

import duckdb
import numpy as np
import pyarrow as pa

from curate.catalog.gates import Gate, check_gates, one_line
from curate.errors import UserError
from curate.global_stages.duplicates.clips import ClipColumns, Earlier, read_clips, read_earlier
from curate.global_stages.duplicates.components import components
from curate.global_stages.duplicates.keep import keep, rule_order
from curate.global_stages.duplicates.kinds import Exact, Kind, Near, Semantic
from curate.global_stages.duplicates.presence import gone
from curate.global_stages.duplicates.settings import DuplicateSettings
from stages.base import Column, GlobalStage, SettingsError

VERSION = 2  # changes whenever the same clips would be judged differently


class Duplicates(GlobalStage[DuplicateSettings]):
    """The cluster of duplicates of a clip, and whether it is the clip of the cluster to keep."""

    name: ClassVar[str] = "duplicates"
    default_table: ClassVar[str] = "duplicates"
    own_signals: ClassVar[Mapping[str, Column]] = {
        "duplicate_cluster": Column(
            "string", "smallest clip_id of the cluster; its own for a clip alone: `GROUP BY` it"
        ),
        "duplicate_count": Column("int64", "clips in the cluster; 1 for a clip alone"),
        "duplicate_keep": Column(
            "bool",
            "TRUE for one clip of each cluster, and for every clip without duplicates",
            also=("unique", "is_duplicate", "duplicate", "is_unique"),
        ),
        "duplicate_of": Column("string", "kept clip that this one is a duplicate of; NULL for kept clips"),
        "duplicate_kind": Column("string", "`exact`, `near` or `semantic`, the strongest; NULL for a clip alone"),
        "duplicate_component": Column("string", "smallest clip_id of all that duplicates of duplicates join"),
        "duplicate_basis": Column(
            "binary", "hash of everything the judgement follows from, so that the next run sees what changed"
        ),
    }

    def check(self) -> None:
        if self.settings.score is None:
            return
        try:
            statements = duckdb.connect().extract_statements(f"SELECT ({self.settings.score}\n) FROM clips")
        except duckdb.Error as error:
            raise SettingsError(f"score is no SQL expression: {one_line(error)}") from error
        if len(statements) != 1:
            raise SettingsError(f"score is one SQL expression over the columns of clips, not {self.settings.score!r}")

    def versions(self) -> dict[str, str]:
        return {self.name: str(VERSION)}

    def compute(self, connection: duckdb.DuckDBPyConnection, select: str, previous: pa.Table | None) -> pa.Table:
        if self.settings.score is not None:
            _check_score(self.settings.score, connection)
        clips = read_clips(connection, select, self.settings)
        earlier = read_earlier(clips, previous)
        with ExitStack() as opened:
            kinds = self._kinds(clips)
            for kind in kinds:
                opened.enter_context(closing(kind))
            fresh = np.ones(len(clips), bool)
            if earlier is not None:
                fresh[earlier.clips] = False
            component, redone = _components(kinds, fresh, earlier)
            together = np.bincount(component, minlength=len(clips))[component] > 1
            away = gone(connection, clips.source_ids, np.flatnonzero(together))
            place = rule_order(away, clips.area, clips.score, clips.captioned)
            return _table(clips, kinds, component, place, redone, earlier)

    def _kinds(self, clips: ClipColumns) -> list[Kind]:
        kinds: list[Kind] = [Exact(clips.content)] if self.settings.exact else []
        if clips.frames is not None and self.settings.near is not None:
            kinds.append(Near(clips.frames, clips.sources, clips.media, self.settings.near))
        if clips.embeddings is not None:
            kinds.append(Semantic(clips.embeddings))
        return kinds


def _components(kinds: list[Kind], fresh: np.ndarray, earlier: Earlier | None) -> tuple[np.ndarray, np.ndarray]:
    """(component (n,), redone (n,)): the first clip of each clip's component; whether the clip is to be judged again.

    Only pairs with a new clip are compared (`fresh` (n,) bool). Where new clips changed the links between earlier ones,
    the whole components of these are compared again.
    """
    links = [kind.links(fresh, np.ones(len(fresh), bool)) for kind in kinds]
    again = fresh.copy()
    if earlier is not None:
        changed = np.zeros(len(fresh), bool)
        changed[np.concatenate([found.changed for found in links])] = True
        affected = np.isin(earlier.component, earlier.component[changed[earlier.clips]])
        if affected.any():
            again[earlier.clips[affected]] = True
            links += [kind.links(again, again) for kind in kinds]
    ends = [(found.first, found.second) for found in links]
    if earlier is not None:
        valid = ~again[earlier.clips]
        ends.append((earlier.component[valid], earlier.clips[valid]))
    first, second = (np.concatenate(side).astype(np.int32) for side in zip(*ends, strict=True))
    component = components(len(fresh), first, second)
    redone = np.zeros(len(fresh), bool)
    redone[component[again]] = True
    return component, redone[component]


def _table(
    clips: ClipColumns,
    kinds: list[Kind],
    component: np.ndarray,
    place: np.ndarray,
    redone: np.ndarray,
    earlier: Earlier | None,
) -> pa.Table:
    together = np.bincount(component, minlength=len(clips))[component] > 1
    if earlier is not None:
        redone = redone | _judged_otherwise(component, place, earlier)
    duplicate_of, kind = keep(component, np.flatnonzero(redone & together), place, [one.alike for one in kinds])
    names = [one.name for one in kinds]
    if earlier is not None:
        valid = ~redone[earlier.clips]
        duplicate_of[earlier.clips[valid]] = earlier.duplicate_of[valid]
        codes: dict[str | None, int] = {name: number for number, name in enumerate(names)} | {None: -1}
        kind[earlier.clips[valid]] = [codes[name] for name in earlier.kind.filter(pa.array(valid)).to_pylist()]
    dropped = duplicate_of >= 0
    everyone = np.arange(len(clips))
    kept = np.where(dropped, duplicate_of, everyone)
    smallest = everyone.copy()
    np.minimum.at(smallest, kept, everyone)
    return pa.table(
        {
            "clip_id": clips.ids,
            "source_id": clips.source_ids,
            "duplicate_cluster": clips.ids.take(pa.array(smallest[kept])),
            "duplicate_count": pa.array(np.bincount(kept, minlength=len(clips))[kept].astype(np.int64)),
            "duplicate_keep": pa.array(~dropped),
            "duplicate_of": clips.ids.take(pa.array(duplicate_of, mask=~dropped)),
            "duplicate_kind": pa.array(names, pa.string()).take(pa.array(kind, mask=kind < 0)),
            "duplicate_component": clips.ids.take(pa.array(component)),
            "duplicate_basis": _eight_bytes(clips.basis),
        }
    )


def _judged_otherwise(component: np.ndarray, place: np.ndarray, earlier: Earlier) -> np.ndarray:
    """(n,) bool: clips of components of which an earlier run did not keep what is the first now: a source of theirs
    has gone, or come back.
    """
    best = np.full(len(component), len(component), np.int64)
    np.minimum.at(best, component, place)
    dropped = np.zeros(len(component), bool)
    dropped[earlier.clips[earlier.duplicate_of >= 0]] = True
    changed = np.zeros(len(component), bool)
    changed[component[dropped & (place == best[component])]] = True
    return changed[component]


def _eight_bytes(values: np.ndarray) -> pa.Array:
    data = pa.py_buffer(values.astype("<u8").tobytes())
    return pa.Array.from_buffers(pa.binary(8), len(values), [None, data]).cast(pa.binary())


def _check_score(score: str, connection: duckdb.DuckDBPyConnection) -> None:
    """A score follows the rules of a gate: one value per clip, from its own columns, the same every time."""
    columns = connection.sql("SELECT * FROM clips LIMIT 0").to_arrow_table().schema
    try:
        gate = Gate(name="score", where=f"({score}\n) IS NOT NULL")
        check_gates([gate], {field.name: field.type for field in columns})
    except UserError as error:
        raise SettingsError(str(error).removeprefix("gate ")) from error
