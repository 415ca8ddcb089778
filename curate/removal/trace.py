"""Which datasets, training runs and checkpoints saw certain clips, and how often up to which step.

Nothing of it is logged while a run trains, but for samples that could not be read: the order of a run is a pure
function of its config and its data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.catalog.gates import one_line
from curate.catalog.views import connect, query
from curate.datasets.files import Dataset
from curate.errors import DamagedError, UserError
from curate.removal.trace_counts import Counter, DatasetCounter, VAECounter, rows_of
from curate.removal.trace_places import Found, find
from curate.removal.trace_runs import RunRecord, Weights
from curate.shards.inventory import shard_rows_sql, tables_with_shards
from train.run.lineage import Ancestor

HOLDS, TRAINED, HELD_OUT, VAE = "holds", "trained on", "held out", "VAE"
COLUMNS = ("what", "where", "step", "how", "clips", "times", "via")


@dataclass(frozen=True)
class Sighting:
    """What saw clips: `what` is 'dataset', 'latents', 'checkpoint', 'model' or 'last step', `where` a folder or table.

    `how`: 'holds' (a dataset), 'trained on', 'held out' (for validation, never trained on), or by way of what the run
    learned from: 'start' (its initial weights), 'teacher', 'VAE' (of its latents), 'VAE of start', ...; `via` is then
    the run and step that trained on the clips. `times` is how often they were in a batch, all together.
    """

    what: str
    where: str
    step: int | None
    how: str
    via: str | None
    counts: np.ndarray = field(repr=False)  # (K,) of each clip; where `times` is None, 1 for those that it has

    @property
    def clips(self) -> int:
        return int((self.counts > 0).sum())

    @property
    def times(self) -> int | None:
        return None if self.how in (HOLDS, HELD_OUT) else int(self.counts.sum())

    def row(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in COLUMNS)


@dataclass
class Traced:
    """`problems` are what may have seen the clips and can't be asked."""

    clips: pa.Array
    sightings: list[Sighting] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[Any, ...]]:
        """One for each sighting, of COLUMNS."""
        return [each.row() for each in self.sightings]

    def rows_by_clip(self) -> Iterator[tuple[Any, ...]]:
        """One for each sighting of a clip: clip_id, and COLUMNS without clips."""
        at = COLUMNS.index("clips")
        for each in self.sightings:
            row = each.row()
            for number in np.flatnonzero(each.counts).tolist():
                times = None if each.times is None else int(each.counts[number])
                yield (self.clips[number].as_py(), *row[:at], times, each.via)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in self.rows()]
        return {"clips": len(self.clips), "sightings": rows, "problems": self.problems}


def chosen_clips(sql: duckdb.DuckDBPyConnection, where: str) -> pa.Array:
    """The ids of clips by a condition on the view `clips`. UserError for wrong SQL, and where there is no such clip."""
    if not where.strip():
        raise UserError("--where: give a condition on the view clips, such as \"uri = '/films/a.mp4'\"")
    chosen = f"SELECT clip_id FROM clips WHERE ({where}\n)"
    try:
        query(sql, f"{chosen} LIMIT 0")  # that it is one condition
        found = sql.sql(f"{chosen} ORDER BY clip_id").to_arrow_table()
    except (UserError, duckdb.Error) as error:
        raise UserError(f"--where {where}: {one_line(error)}") from error
    if not found.num_rows:
        raise UserError(f"no clip of this catalog is WHERE {where}: nothing to trace")
    return found["clip_id"].combine_chunks()


def trace_clips(
    catalog: Catalog, clip_ids: Collection[str], runs: Sequence[str] = (), datasets: Sequence[str] = ()
) -> Traced:
    """What saw these clips; `runs` and `datasets` are folders to look in besides those that notes lead to."""
    with connect(catalog) as sql:
        return trace(catalog, sql, pa.array(sorted(clip_ids), pa.string()), find(catalog, runs, datasets))


def what_saw(catalog: Catalog, clip_ids: Collection[str]) -> dict[str, Any]:
    """The same for the record of a purge, which goes on where that can't be told."""
    try:
        return trace_clips(catalog, clip_ids).to_dict()
    except (UserError, DamagedError) as error:
        return {"clips": len(clip_ids), "sightings": [], "problems": [str(error)]}


def trace(catalog: Catalog, sql: duckdb.DuckDBPyConnection, clips: pa.Array, found: Found) -> Traced:
    """What of `found` saw these clips."""
    traced = Traced(clips, problems=found.problems)
    tracer = _Tracer(clips, found)
    for dataset in found.datasets:
        holds = (rows_of(dataset, clips) >= 0).astype(np.int64)
        if holds.any():
            traced.sightings.append(Sighting("dataset", str(dataset.folder), None, HOLDS, None, holds))
        for how, run, step in tracer.lineage(tracer.vae_edges(dataset.contract.fingerprint)):
            traced.sightings += tracer.seen_by("dataset", str(dataset.folder), None, how, run, step)
    for table in tables_with_shards(sql):
        for fingerprint in _fingerprints(sql, table):
            for how, run, step in tracer.lineage(tracer.vae_edges(fingerprint)):
                traced.sightings += tracer.seen_by("latents", table, None, how, run, step)
    for run in found.runs:
        for weights in run.weights():
            traced.sightings += tracer.own(run, weights)
            for how, other, step in tracer.lineage(tracer.edges(run)):
                traced.sightings += tracer.seen_by(weights.what, str(run.folder), weights.step, how, other, step)
    traced.problems += tracer.problems
    return traced


Edge = tuple[str, RunRecord, int]  # how, and the run and step of the weights


class _Tracer:
    def __init__(self, clips: pa.Array, found: Found):
        self.clips, self.found = clips, found
        self.problems: list[str] = []
        self.counter = cache(self._counter)
        self.edges = cache(self._edges)

    def own(self, run: RunRecord, weights: Weights) -> Iterator[Sighting]:
        """What weights of a run saw in its own training; also where that is nothing yet, of clips that it will see."""
        counter = self.counter(run)
        if counter is None:
            return
        where, step = str(run.folder), weights.step
        if counter.trained.any():
            yield Sighting(weights.what, where, step, TRAINED, None, counter.before(step))
        if counter.held.any():
            yield Sighting(weights.what, where, step, HELD_OUT, None, counter.held.astype(np.int64))

    def seen_by(self, what: str, where: str, at: int | None, how: str, run: RunRecord, step: int) -> Iterator[Sighting]:
        """What a run saw up to a step, as a sighting of something that came of it."""
        counter = self.counter(run)
        if counter is not None and (counts := counter.before(step)).any():
            yield Sighting(what, where, at, how, f"{run.folder} step {step:,}", counts)

    def lineage(self, edges: Sequence[Edge]) -> Iterator[Edge]:
        """The edges, and those that their runs have in turn, each run and step once; the nearest first."""
        seen, todo = set(), list(edges)
        while todo:
            how, run, step = todo.pop(0)
            if (run.run_id, step) not in seen:
                seen.add((run.run_id, step))
                yield how, run, step
                todo += [(f"{more} of {how}", other, at) for more, other, at in self.edges(run)]

    def vae_edges(self, fingerprint: str) -> list[Edge]:
        """The run of the VAE that encoded latents."""
        return [(VAE, run, run.models[fingerprint]) for run in self.found.runs if fingerprint in run.models]

    def _edges(self, run: RunRecord) -> list[Edge]:
        """What a run learned from."""
        found = []
        for each in run.ancestors:
            other = self._run_of(each)
            if other is None:
                if each.run_id is not None:
                    self.problems.append(
                        f"the run {run.folder} learned from the run {each.run_id[:8]} ({each.how}), which is not at "
                        f"{each.path} on this machine: give --runs DIR"
                    )
            else:
                step = other.models.get(each.fingerprint or "") or each.step
                last = max((weights.step for weights in other.weights()), default=0)
                found.append((each.how, other, last if step is None else step))
        dataset = None if run.is_vae else self._dataset_of(run)
        return found + (self.vae_edges(dataset.contract.fingerprint) if dataset is not None else [])

    def _run_of(self, ancestor: Ancestor) -> RunRecord | None:
        """By its id, or, of a VAE, by its weights."""
        return next(
            (r for r in self.found.runs if r.run_id == ancestor.run_id or ancestor.fingerprint in r.models), None
        )

    def _dataset_of(self, run: RunRecord) -> Dataset | None:
        return next((each for each in self.found.datasets if each.identity == run.config.get("identity")), None)

    def _counter(self, run: RunRecord) -> Counter | None:
        try:
            if run.is_vae:
                return VAECounter(run, self.clips)
            dataset = self._dataset_of(run)
            if dataset is None:
                what = str(run.config.get("identity") or "a dataset").partition(",")[0]
                raise UserError(
                    f"the run {run.folder} trained on {what}, which is not at {run.config.get('dataset')}: give "
                    "--datasets DIR"
                )
            return DatasetCounter(run, dataset, self.clips)
        except UserError as error:
            self.problems.append(str(error))
            return None


def _fingerprints(sql: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """Of the VAEs that made the latents in a table."""
    rows = sql.execute(
        f"SELECT DISTINCT json_extract_string(contract, '$.fingerprint') FROM {shard_rows_sql(sql, table)}"
    )
    return sorted(name for (name,) in rows.fetchall() if name)
