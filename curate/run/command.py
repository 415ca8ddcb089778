"""A run: recipes to plans, what is pending to units, an engine to do them, a committer to keep them.

A plan has up to three parts, in this order: sources through the decode pass and the stages behind it; clips
that lack the row of a stage; and set operations over all clips.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from curate.catalog.catalog import Catalog
from curate.catalog.idset import IdSet
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect
from curate.engines import run_units
from curate.errors import EngineError, UserError
from curate.global_stages.base import run_set
from curate.interrupts import STOPPED, Interrupts
from curate.recipe.checks import check_columns, check_plan_gates, check_sources, check_together, clip_columns
from curate.recipe.load import load_recipes
from curate.recipe.plan import Plan, environment, make_plan
from curate.run.committer import Committer
from curate.run.listing import Listing
from curate.run.pending import Pending, known_ids, pending_sources
from curate.run.progress import Progress
from curate.run.report import report_run
from curate.run.selection import Selection, check_select, chosen_sql, passes_sql, with_nulls_sql
from curate.run.settings_guard import refuse_mixture
from curate.run.stale_rows import forget_stale, of_other_settings
from curate.shards.inventory import collect_orphans
from curate.storage import is_local, local_path
from stages.base import SettingsError, Stage


@dataclass(frozen=True)
class RunOptions:
    """What the command line says about how to run, beside the recipe."""

    engine: str = "ray"
    limit: int | None = None
    retry_failed: bool = False
    rebuild: bool = False
    quiet: bool = False


def run_recipes(
    names: list[str],
    catalog: str,
    inputs: list[str] | None = None,
    pipelines: str | Path | None = None,
    overrides: tuple[str, ...] = (),
    options: RunOptions = RunOptions(),
) -> int:
    """Runs recipes one after the other; returns 0, or 1 where sources or clips failed. Raises UserError."""
    recipes = load_recipes(pipelines, names, overrides)
    if inputs:
        if all(recipe.select for recipe in recipes):
            raise UserError(f"--input is for recipes that take sources; {names[0]!r} takes clips by its `select`")
        recipes = [r if r.select else replace(r, inputs=tuple(inputs)) for r in recipes]
    plans = [make_plan(recipe) for recipe in recipes]
    listings = [Listing(absolute(r.inputs), r.extensions) if r.select is None else None for r in recipes]
    where = Catalog.open(catalog) if recipes[0].select else Catalog.open_or_create(catalog)
    for plan, listing in zip(plans, listings, strict=True):
        if listing is not None:
            check_plan_gates(plan, {})
            listing.check()
    check_together(plans)
    with ExitStack() as keep:  # what an engine starts is shared by all recipes
        codes = []
        for plan, listing in zip(plans, listings, strict=True):
            codes.append(_Run(plan, listing, where, options, keep).run())
            if codes[-1] == STOPPED:
                break
        return max(codes)


def absolute(inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Inputs as the catalog keeps them: `status` must find them again from any folder."""
    return tuple(local_path(text) if is_local(text) else text for text in inputs)


class _Run:
    """One recipe on one catalog."""

    def __init__(self, plan: Plan, listing: Listing | None, catalog: Catalog, options: RunOptions, keep: ExitStack):
        self.plan, self.listing, self.catalog, self.options, self.keep = plan, listing, catalog, options, keep
        self.run_id = uuid.uuid4().hex
        self.stamp = {"recipe": plan.recipe.name, "run_id": self.run_id}
        self.sources: Pending | None = None
        self.selection: Selection | None = None

    def run(self) -> int:
        plan, catalog, options = self.plan, self.catalog, self.options
        for step in plan.clip_steps:
            step.stage.bind(catalog.uri)
        check_columns(plan, catalog)
        if plan.decode is None:
            with connect(catalog, without_gates_of=plan.recipe.name) as sql:
                check_select(sql, plan)
                check_plan_gates(plan, clip_columns(sql))
                check_sources(plan, sql)
        with ExitStack() as stack:
            self.ledgers = {
                table: stack.enter_context(Ledger(catalog, mark=table, key=mark.key, run_id=self.run_id))
                for table, mark in plan.marks.items()
            }
            self._refuse_mixtures()
            self._clear_left_over()
            self._collect_orphans()
            if plan.decode is not None:
                settings = plan.marks["sources"].settings
                self.sources = pending_sources(
                    self.ledgers["sources"],
                    self.listing,
                    settings,
                    limit=options.limit,
                    retry_failed=options.retry_failed,
                    rebuild=options.rebuild,
                )
            catalog.put_gates(plan.recipe.name, plan.gates, self.run_id)
            self._note_start()
            self.committer = Committer(plan, self.ledgers, self._replaced(), self.stamp)
            began = time.monotonic()
            error: Exception | None = None
            with Interrupts() as interrupts:
                try:
                    self._work(interrupts)
                except SettingsError as caught:
                    error = UserError(f"{plan.recipe.file}: recipe {plan.recipe.name!r}: {caught}")
                except (UserError, EngineError) as caught:
                    error = caught
            status = "stopped" if interrupts.seen else "error" if error else "finished"
            self._note_end(status, time.monotonic() - began)
            if error is not None:
                raise error
            for ledger in self.ledgers.values():
                ledger.compact()
            if not interrupts.seen:
                self._collect_orphans()
        if interrupts.seen:
            print("stopped; what was finished is committed, the same command goes on from here", file=sys.stderr)
            return STOPPED
        return report_run(
            catalog, plan, self.committer, self.sources, self.selection, self.listing, quiet=options.quiet
        )

    def _work(self, interrupts: Interrupts) -> None:
        plan = self.plan
        if plan.decode is not None:
            stages = (plan.decode, *plan.chain(plan.columns.get("clips", {})))
            self._units(self.sources, stages, Progress.of_sources(plan, self.committer, self.sources), interrupts)
            if len(self.sources.replace) and not interrupts.seen:
                with connect(self.catalog) as sql:
                    forget_stale(self.catalog, sql, self.ledgers)
        if plan.clip_steps and not interrupts.seen:
            self._select(interrupts)
        if plan.set_steps and not interrupts.seen:
            self._sets()

    def _units(self, pending: Iterable[Any], stages: tuple[Stage, ...], progress: Progress, stop: Interrupts) -> None:
        """Pending units through the engine, which is started only if there is one; all of them committed."""
        todo = iter(pending)
        progress.quiet = self.options.quiet
        if (first := next(todo, None)) is None:
            return
        units = run_units(stages, chain([first], todo), self.options.engine, stop.stop, self.keep)
        with progress:
            try:
                for unit in units:
                    self.committer.add(unit)
                    progress.update()
            finally:
                units.close()
                self.committer.flush()

    def _select(self, interrupts: Interrupts) -> None:
        """Clips that lack the row of a stage: those a recipe selects, or that a decode pass left behind."""
        from stages.decode.seek import FetchFrames

        plan, options, again = self.plan, self.options, self.plan.decode is None
        with connect(self.catalog, without_gates_of=plan.recipe.name) as sql:
            self.selection = Selection(
                self.catalog,
                plan,
                sql,
                limit=options.limit if again else None,
                retry_failed=options.retry_failed,
                rebuild=options.rebuild and again,
            )
            self.committer.replace |= self.selection.replace
            chain_ = plan.chain(clip_columns(sql), FetchFrames(plan.requests) if plan.requests else None)
            progress = Progress.of_clips(plan, self.committer, self.selection)
            self._units(self.selection, chain_, progress, interrupts)
        if self.selection.limit is None and not interrupts.seen:
            self._forget_other_settings()

    def _forget_other_settings(self) -> None:
        """Everything that is wanted was made under today's settings: what a rebuild did not reach is no longer."""
        with connect(self.catalog) as sql:
            for table in self.selection.tables:
                if table in self.catalog.tables():
                    gone = of_other_settings(sql, table, self.plan.marks[table].settings)
                    if gone:
                        self.ledgers[table].forget(gone)

    def _sets(self) -> None:
        for step in self.plan.set_steps:
            table = step.stage.table
            stamp = {"settings": self.plan.marks[table].settings, **self.stamp}
            with connect(self.catalog, without_gates_of=self.plan.recipe.name) as sql:
                columns = [row[0] for row in sql.execute("DESCRIBE clips").fetchall()]
                chosen = f"SELECT chosen.clip_id FROM ({chosen_sql(self.plan)}\n) AS chosen"
                select = (
                    f"SELECT clip_id FROM ({with_nulls_sql(sql, step.gates, columns)}) AS clips "
                    f"WHERE {passes_sql(step.gates)} AND clip_id IN ({chosen})"
                )
                try:
                    rows = run_set(step.stage, self.catalog, self.ledgers[table], sql, select, stamp)
                except (SettingsError, UserError) as error:
                    raise UserError(f"{self.plan.recipe.file}:{step.entry.line}: {step.entry.name}: {error}") from error
            self.committer.marked[table, "done"] += rows

    def _refuse_mixtures(self) -> None:
        for table, mark in self.plan.marks.items():
            if any(
                text != mark.settings and (status == "done" or table == "sources")
                for part in self.ledgers[table].known()
                for text, status in set(zip(part["settings"].to_pylist(), part["status"].to_pylist(), strict=True))
            ):
                refuse_mixture(self.catalog, self.plan, mark, self.options.rebuild)

    def _clear_left_over(self) -> None:
        """After a kill between a commit and what a stage clears then."""
        for step in self.plan.clip_steps:
            if left := step.stage.left_over():
                done = set()
                for part in self.ledgers[step.stage.table].known():
                    rows = zip(part["clip_id"].to_pylist(), part["status"].to_pylist(), strict=True)
                    done |= {clip for clip, status in rows if clip in left and status == "done"}
                step.stage.committed(done)

    def _collect_orphans(self) -> None:
        """Shards that no row names, of runs that were killed or of rows that were made again. No worker is writing."""
        for step in self.plan.clip_steps:
            if step.stage.keeps_shards:
                collect_orphans(self.ledgers[step.stage.table])

    def _replaced(self) -> dict[str, IdSet]:
        """Rows that go where sources are made again: their own, and those that stages made of their clips."""
        if self.sources is None:
            return {}
        replaced = {"sources": self.sources.replace}
        if len(self.sources.replace):
            for step in self.plan.clip_steps:
                replaced[step.stage.table] = known_ids(self.ledgers[step.stage.table])
        return replaced

    def _note_start(self) -> None:
        marks = self.plan.marks
        self.catalog.start_run(
            {
                "run_id": self.run_id,
                "recipe": self.plan.recipe.name,
                "recipe_text": self.plan.recipe.text,
                "stages": json.dumps({table: json.loads(mark.stages_json) for table, mark in marks.items()}),
                "settings": json.dumps({table: mark.settings for table, mark in marks.items()}),
                "versions": json.dumps(environment()),
                "inputs": json.dumps(self.listing.inputs if self.listing is not None else []),
                "engine": self.options.engine,
            }
        )

    def _note_end(self, status: str, seconds: float) -> None:
        counts: dict[str, Any] = dict(self.committer.counts)
        if self.sources is not None:
            counts |= {"listed": self.sources.listed, "left_out": self.listing.left_out}
        counts |= {"seconds": round(seconds, 3), "stage_seconds": dict(self.committer.stage_seconds)}
        counts |= {"tables": {f"{table} {state}": n for (table, state), n in self.committer.marked.items()}}
        self.catalog.end_run(self.run_id, {"status": status, "counts": json.dumps(counts)})
