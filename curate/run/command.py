"""`clipmill run`: recipes to plans, what is pending to units, an engine to do them, ledgers to keep them.

A plan has up to three parts, in this order: sources through the decode pass and the stages after it; clips that lack
the row of a stage; and stages over all clips.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.locations import absolute
from curate.catalog.places import LINK, note_places, read_places
from curate.catalog.schema import BASE
from curate.catalog.unit_writer import FileSet, Schemas, WriterSettings, state_schema
from curate.catalog.views import connect
from curate.engines.choose import ENGINES, Engines
from curate.engines.engine import CloseRule, Work
from curate.errors import EngineError, UserError
from curate.global_stages.run_global import run_global
from curate.interrupts import STOPPED, Interrupts
from curate.recipe.checks import check_columns, check_plan_gates, check_together, clip_columns, prepare
from curate.recipe.load import Recipe, load_recipes
from curate.recipe.plan import Plan, make_plan
from curate.removal.carry_out import finish_unfinished, refuse_unfinished
from curate.removal.memory import read_purged, remember_copies
from curate.run.committer import Committer
from curate.run.listing import Listing, nothing_found
from curate.run.loose_columns import fit_together
from curate.run.manifests.clip_cells import clip_cells
from curate.run.manifests.refresh import Refreshed
from curate.run.moved import link_notes, refuse_left_places
from curate.run.naming import Naming
from curate.run.pending import PendingSources, pending_sources
from curate.run.progress import ClipProgress, SourceProgress
from curate.run.report import Outcome, in_short, report_runs
from curate.run.run_rows import end_row, start_row
from curate.run.selection import Selection, check_select, chosen_sql, passes_sql, with_nulls_sql
from curate.run.settings_guard import refuse_mixture
from curate.run.stale_rows import failures_of, forget_stale, of_other_settings
from curate.run.stop import stop_requests
from curate.run.take_columns import SourceColumns, look_alikes
from curate.shards.changed import find_changed
from curate.shards.inventory import collect_orphans
from stages.base import GlobalStage, SettingsError, ShardStage, UnitStage
from stages.scan.purged import without_purged
from stages.unit import Source, Unit

Shown = SourceProgress | ClipProgress


@dataclass(frozen=True)
class RunOptions:
    """What the command line says about how to run, beside the recipe."""

    engine: str = "auto"  # one of ENGINES
    limit: int | None = None
    retry_failed: bool = False
    rebuild: bool = False
    quiet: bool = False
    closing: CloseRule = field(default_factory=CloseRule)


def run_recipes(
    names: list[str],
    catalog: str,
    inputs: list[str] | None = None,
    pipelines: str | Path | None = None,
    overrides: tuple[str, ...] = (),
    options: RunOptions = RunOptions(),
) -> int:
    """Runs recipes one after the other; returns 0, or 1 where sources or clips failed. Raises UserError."""
    if options.engine not in ENGINES:
        raise UserError(f"no engine {options.engine!r}: there is {', '.join(ENGINES)}")
    recipes = load_recipes(pipelines, names, overrides)
    if inputs:
        if all(recipe.select for recipe in recipes):
            raise UserError(f"--input is for recipes that take sources; {names[0]!r} takes clips by its `select`")
        recipes = [r if r.select else replace(r, inputs=tuple(inputs)) for r in recipes]
    plans = [make_plan(recipe) for recipe in recipes]
    listings = [Listing(absolute(r.inputs), r.extensions) if r.select is None else None for r in recipes]
    where = Catalog.open(catalog) if recipes[0].select else Catalog.open_or_create(catalog)
    columns: list[SourceColumns | None] = []
    for plan, listing in zip(plans, listings, strict=True):
        columns.append(None)
        if listing is not None:
            refuse_left_places(read_places(where), listing.inputs, catalog)
            listing.check()
            listing.read_columns()
            columns[-1] = of_sources = SourceColumns(where, plan, listing)
            check_plan_gates(plan, of_sources.gate_types)
            for line in look_alikes(listing) if not options.quiet else ():
                print(line, file=sys.stderr)
    check_together(plans)
    if not options.quiet:
        _say_what_holds(recipes, overrides)
    with Engines(options.engine, quiet=options.quiet) as engines:  # what is started is shared by all recipes
        outcomes: list[Outcome] = []
        code = 0
        try:
            for plan, listing, own in zip(plans, listings, columns, strict=True):
                outcome = _Run(plan, listing, own, where, options, engines).run()
                if outcome is None:
                    break
                outcomes.append(outcome)
        finally:  # an error of one recipe does not hide what those before it did
            if outcomes:
                code = report_runs(where, outcomes, quiet=options.quiet)
        return code if len(outcomes) == len(plans) else STOPPED


def _say_what_holds(recipes: list[Recipe], overrides: tuple[str, ...]) -> None:
    """Of `--set` on gates: the next run without it judges by the recipe again."""
    for text in overrides:
        stage, _, setting = text.partition("=")[0].partition(".")
        judged = {name for recipe in recipes for entry in recipe.stages if stage in (entry.name, entry.label)
                  for name in getattr(entry.settings, "judged", ())}  # fmt: skip
        if stage != "gate" and setting not in judged:
            continue
        in_file = {name for recipe in recipes for name in recipe.gate_lines}
        new = (
            f" (a new gate, beside {', '.join(sorted(in_file))})" if stage == "gate" and setting not in in_file else ""
        )
        print(f"--set {text}{new}: holds until the next run without it; write it into the recipe to keep it",
              file=sys.stderr)  # fmt: skip


class _Run:
    """One recipe on one catalog."""

    def __init__(
        self, plan: Plan, listing: Listing | None, columns: SourceColumns | None, catalog: Catalog,
        options: RunOptions, engines: Engines,
    ):  # fmt: skip
        self.plan, self.listing, self.catalog, self.options, self.engines = plan, listing, catalog, options, engines
        self.columns = columns
        self.run_id = uuid.uuid4().hex
        self.sources: PendingSources | None = None
        self.refreshed: Refreshed | None = None
        self.selection: Selection | None = None
        self._writer: WriterSettings | None = None

    def run(self) -> Outcome | None:
        """What it did; None where it was stopped."""
        plan, catalog = self.plan, self.catalog
        finish_unfinished(catalog)
        check_columns(plan, catalog)
        if plan.decode is None:
            with connect(catalog, without_gates_of=plan.recipe.name) as sql:
                check_select(sql, plan)
                check_plan_gates(plan, clip_columns(sql))
                prepare(plan, catalog, sql)
        else:
            prepare(plan, catalog)
        with ExitStack() as stack:
            self.ledgers = {
                table: stack.enter_context(Ledger(catalog, table, state.key, self.run_id))
                for table, state in plan.state_tables.items()
            }
            refuse_unfinished(catalog)  # with a lease: a purge that begins now sees it
            self.purged = read_purged(catalog)
            self.committer = Committer(self.ledgers, {stage.table: stage for stage in plan.clip_stages})
            self._refuse_mixtures()
            self._clear_left_over()
            self._collect_orphans()
            self.places = read_places(catalog)
            self.naming = Naming(self.places, self.listing.inputs if self.listing is not None else (), self._note_links)
            self.sources = self._pending_sources()
            catalog.put_gates(plan.recipe.name, plan.gates, self.run_id)
            catalog.start_run(start_row(plan, self.run_id, self.listing, self.options.engine))
            began = time.monotonic()
            error: Exception | None = None
            with Interrupts() as interrupts, stop_requests(catalog.uri, self.run_id, interrupts.stop):
                try:
                    self._work(interrupts)
                except SettingsError as caught:
                    error = UserError(f"{plan.recipe.file}: recipe {plan.recipe.name!r}: {caught}")
                except (UserError, EngineError) as caught:
                    error = caught
            status = "stopped" if interrupts.seen else "error" if error else "finished"
            ended = end_row(status, time.monotonic() - began, self.committer.total, self.sources, self.listing)
            catalog.end_run(self.run_id, ended)
            if error is not None:
                raise error
            for ledger in self.ledgers.values():
                ledger.maintain(self.engines.rewrite)
            catalog.compact_own_tables()
            if not interrupts.seen:
                self._collect_orphans()
        if interrupts.seen:
            counts = f"in this run {in_short(self.committer.total)}"
            print(f"stopped; {counts}; what was finished is committed, the same command goes on from here",
                  file=sys.stderr)  # fmt: skip
            return None
        for line in link_notes(self.places, self.naming.links.found):
            print(line, file=sys.stderr)
        return Outcome(plan, self.committer.total, self.sources, self.selection, self.listing, self.refreshed)

    def _work(self, interrupts: Interrupts) -> None:
        plan, sources, listing, columns = self.plan, self.sources, self.listing, self.columns
        if plan.decode is not None and sources is not None and listing is not None and columns is not None:
            columns.opt_outs.refresh(self.catalog, self.ledgers["sources"], self.options.quiet, interrupts.stop.is_set)
            fetch = None if plan.decode.gives_frames else self._fetch()
            known = columns.gate_types | plan.columns.get("clips", {})
            on_clips = plan.stages_on_clips(known, fetch, columns.gate_names)
            stages = (*without_purged(plan.decode, self.purged), *on_clips)
            progress = SourceProgress(plan, self.committer.total, sources, listing, self.options.quiet)
            self._units(iter(sources), stages, progress, interrupts)
            remember_copies(self.catalog, self.committer.total.purged)
            if not sources.listed and not sources.taken and not interrupts.seen:
                raise UserError(nothing_found(listing))
            if gone := failures_of(listing.whole_archives, self.ledgers["sources"]):
                self.ledgers["sources"].forget(gone, self.engines.rewrite)
            if len(sources.redo) and not interrupts.seen:
                with connect(self.catalog) as sql:
                    forget_stale(self.catalog, sql, self.ledgers)
        if plan.clip_stages and not interrupts.seen:
            self._select(interrupts)
        if plan.global_steps and not interrupts.seen:
            self._global_stages()

    def _pending_sources(self) -> PendingSources | None:
        if self.listing is None or self.columns is None:
            return None
        options, ledger = self.options, self.ledgers["sources"]
        self.refreshed = self.columns.take(ledger, self.naming, self._begin)
        found = pending_sources(
            ledger,
            self.columns.opt_outs.entries(self.listing),
            self.plan.state_tables["sources"].settings,
            limit=options.limit,
            retry_failed=options.retry_failed,
            rebuild=options.rebuild,
            again=self._left_undone(),
            naming=self.naming,
            purged=self.purged,
        )
        found.see_inside = self._take_archive_columns
        return found

    def _take_archive_columns(self, sources: Sequence[Source]) -> None:
        """Makes what archives say of their films fit the columns of `sources`, and adds those that are new."""
        self._begin()
        ledger = self.ledgers["sources"]
        if new := fit_together(sources, ledger.schema("sources")):
            ledger.add_columns("sources", new)

    def _note_links(self, links: dict[str, str]) -> None:
        note_places(self.catalog, LINK, links.items())

    def _left_undone(self) -> set[str]:
        """Sources that earlier gates spared the decode and these do not."""
        condition = self.plan.decode.undone_sql() if self.plan.decode is not None else None
        if condition is None or "sources" not in self.ledgers["sources"].tables:
            return set()
        with connect(self.catalog) as sql:
            return {row[0] for row in sql.execute(f"SELECT source_id FROM sources WHERE {condition}").fetchall()}

    def _units(self, todo: Iterator[Unit], stages: tuple[UnitStage, ...], progress: Shown, stop: Interrupts) -> None:
        """Pending units through an engine, which is started only if there is one; file sets to the ledgers."""
        self._writer = None
        engine, todo = self.engines.choose(todo)
        if engine is None:
            return
        scanned = progress.scanned if isinstance(progress, SourceProgress) else None
        events = engine.run(Work(stages, todo, self._begin(), self._schemas, self.options.closing, stop.stop, scanned))
        with progress:
            try:
                for event in events:
                    if isinstance(event, FileSet):
                        self.committer.commit(event)
                    else:
                        self.committer.total.add(event)
                    progress.update()
            finally:
                events.close()

    def _begin(self) -> WriterSettings:
        """Takes a pass in every ledger, once for each phase, and makes tables and columns for the rows to come."""
        if self._writer is not None:
            return self._writer
        wanted: dict[str, dict[str, pa.Schema]] = {}
        for table in self.plan.state_tables:
            if table == "sources":
                own = [pa.field(n, k) for n, k in self.plan.arrow_columns.get("clips", {}).items()]
                wanted[table] = {name: BASE[name] for name in ("sources", "thumbnails")}
                wanted[table]["clips"] = pa.schema([*BASE["clips"], *own])
            elif table in self.committer.stages:
                wanted[table] = {table: state_schema(self.plan.columns[table])}
        writers = {table: self.ledgers[table].begin(schemas) for table, schemas in wanted.items()}
        stamps = {table: {"settings": self.plan.state_tables[table].settings, **self._stamp} for table in writers}
        reports = frozenset(stage.table for stage in self.plan.clip_stages if stage.keeps_answers)
        cells = {stage.table: stage.source_columns() for stage in self.plan.clip_stages}
        self._writer = WriterSettings(writers, stamps, reports, cells)
        return self._writer

    def _schemas(self) -> Schemas:
        """The stored columns of every table, as they are now."""
        return {name: ledger.schema(name) for ledger in self.ledgers.values() for name in ledger.tables}

    @property
    def _stamp(self) -> dict[str, str]:
        return {"recipe": self.plan.recipe.name, "run_id": self.run_id}

    def _select(self, interrupts: Interrupts) -> None:
        """Clips that lack the row of a stage: those a recipe selects, or that a decode pass left."""
        plan, options, again = self.plan, self.options, self.plan.decode is None
        with ExitStack() as stack:
            sql = stack.enter_context(connect(self.catalog, without_gates_of=plan.recipe.name))
            cells = stack.enter_context(clip_cells(sql, plan.clip_stages, self.options.quiet))
            self.selection = Selection(
                self.catalog,
                plan,
                sql,
                cells,
                limit=options.limit if again else None,
                retry_failed=options.retry_failed,
                rebuild=options.rebuild and again,
            )
            stages = plan.stages_on_clips(clip_columns(sql), self._fetch())
            if plan.shard_stage is not None and not options.rebuild and not options.quiet:
                self._say_changed(sql, plan.shard_stage.table)
            if self.selection.to_do:
                progress = ClipProgress(plan, self.committer.total, self.selection, self.options.quiet)
                self._units(iter(self.selection), stages, progress, interrupts)
        if self.selection.limit is None and not interrupts.seen:
            self._forget_other_settings()

    def _say_changed(self, sql: Any, table: str) -> None:
        if table in self.catalog.tables() and (changed := find_changed(sql, table)) is not None:
            print(f"{changed.what()}: encoding again, {changed.how()}", file=sys.stderr)

    def _fetch(self) -> UnitStage | None:
        """Gets the frames that stages on clips want, by seeking."""
        from stages.decode.seek import FetchFrames

        return FetchFrames(self.plan.requests) if self.plan.requests else None

    def _forget_other_settings(self) -> None:
        """Everything that is wanted was made under today's settings: what a rebuild did not reach is no longer."""
        with connect(self.catalog) as sql:
            for stage in self.plan.clip_stages:
                if stage.table in self.catalog.tables():
                    gone = of_other_settings(sql, stage.table, self.plan.state_tables[stage.table].settings)
                    if gone:
                        self.ledgers[stage.table].forget(gone, self.engines.rewrite)

    def _global_stages(self) -> None:
        for step in self.plan.global_steps:
            assert isinstance(step.stage, GlobalStage)
            table = step.stage.table
            stamp = {"settings": self.plan.state_tables[table].settings, **self._stamp}
            with connect(self.catalog, without_gates_of=self.plan.recipe.name) as sql:
                columns = [row[0] for row in sql.execute("DESCRIBE clips").fetchall()]
                chosen = f"SELECT chosen.clip_id FROM ({chosen_sql(self.plan)}\n) AS chosen"
                select = (
                    f"SELECT clip_id FROM ({with_nulls_sql(sql, step.gates, columns)}) AS clips "
                    f"WHERE {passes_sql(step.gates)} AND clip_id IN ({chosen})"
                )
                try:
                    rows = run_global(step.stage, self.catalog, self.ledgers[table], sql, select, stamp)
                except (SettingsError, UserError) as error:
                    raise UserError(f"{self.plan.recipe.file}:{step.entry.line}: {step.entry.name}: {error}") from error
            self.committer.total.results[table, "done"] += rows

    def _refuse_mixtures(self) -> None:
        for table, state in self.plan.state_tables.items():
            if any(
                text != state.settings and (status == "done" or table == "sources")
                for part in self.ledgers[table].known()
                for text, status in set(zip(part["settings"].to_pylist(), part["status"].to_pylist(), strict=True))
            ):
                refuse_mixture(self.catalog, self.plan, state, self.options.rebuild)

    def _clear_left_over(self) -> None:
        """After a kill between a commit and what a stage clears then."""
        for stage in self.plan.clip_stages:
            if left := stage.left_over():
                done = set()
                for part in self.ledgers[stage.table].known():
                    rows = zip(part["clip_id"].to_pylist(), part["status"].to_pylist(), strict=True)
                    done |= {clip for clip, status in rows if clip in left and status == "done"}
                stage.committed(done)

    def _collect_orphans(self) -> None:
        """Shards that no row names, of runs that were killed or of rows that were made again. No worker is writing."""
        for stage in self.plan.clip_stages:
            if isinstance(stage, ShardStage):
                collect_orphans(self.ledgers[stage.table])
