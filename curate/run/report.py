"""What is printed when a command's runs are over: the funnel by gate, failures by reason, time by stage."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from curate.catalog.catalog import Catalog
from curate.catalog.gates import literal, quote
from curate.catalog.views import connect
from curate.engines.tally import Tally
from curate.recipe.plan import Plan
from curate.run.listing import Listing
from curate.run.manifests.refresh import Refreshed
from curate.run.pending import PendingSources
from curate.run.selection import Selection


@dataclass(frozen=True)
class Outcome:
    """What one recipe of a command has done; what does not belong to its kind is None."""

    plan: Plan
    total: Tally
    sources: PendingSources | None
    selection: Selection | None
    listing: Listing | None
    refreshed: Refreshed | None = None


def report_runs(catalog: Catalog, outcomes: Sequence[Outcome], quiet: bool = False) -> int:
    """Prints one report of a command's recipes; returns the exit code: 1 where a source or clip failed in these runs.
    Those that failed before are named, too.
    """
    tables = list(dict.fromkeys(table for outcome in outcomes for table in outcome.plan.state_tables))
    with connect(catalog) as sql:
        failed, unfit = rows_by_table(sql, tables, "failed"), rows_by_table(sql, tables, "unfit")
        funnel = funnel_rows(sql, [gate.name for gate in catalog.gates()])
        whole = catalog_line(sql)
    code = 1 if any(_failed_now(outcome.total) for outcome in outcomes) else 0
    if quiet:
        return code
    console = report_console()
    for outcome in outcomes:
        for line in _heading(outcome):
            console.print(line)
    console.print(table_of("clips", FUNNEL, funnel))
    any_unfit = any(outcome.total.unfit for outcome in outcomes)
    rows = [
        _stage_row(table, outcome.total, outcome.selection, any_unfit)
        for outcome in outcomes
        for table in outcome.plan.state_tables
        if table != "sources"
    ]
    if rows:
        names = ("table", "done before", "done in this run", "failed in this run")
        console.print(table_of("clips by stage", (*names, "unfit in this run") if any_unfit else names, rows))
    reasons, not_taken, seconds = Counter[str](), Counter[str](), Counter[str]()
    for outcome in outcomes:
        reasons.update(outcome.total.reasons)
        not_taken.update(outcome.total.unfit)
        seconds.update(outcome.total.stage_seconds)
    for title, counter in (("failures of this run", reasons), ("unfit in this run", not_taken)):
        if counter:
            counted = [(reason, f"{n:,}") for reason, n in counter.most_common()]
            console.print(table_of(title, ("reason", "number"), counted))
    if seconds:
        spent = [(stage, f"{s:,.1f}") for stage, s in seconds.most_common()]
        console.print(table_of("time by stage", ("stage", "CPU seconds"), spent))
    for table, number in failed.items():
        now = sum(outcome.total.failed if table == "sources" else outcome.total.results[table, "failed"]
                  for outcome in outcomes)  # fmt: skip
        named, columns = ("sources", "uri, reason") if table == "sources" else (f"clips in {table}", "clip_id, reason")
        console.print(
            f"{number:,} failed {named}, {min(now, number):,} of them in this run (--retry-failed takes them again): "
            f"clipmill sql \"SELECT {columns} FROM {table} WHERE status = 'failed'\" "
            f"--catalog {shlex.quote(catalog.uri)}"
        )
    for table, number in unfit.items():
        now = sum(outcome.total.results[table, "unfit"] for outcome in outcomes)
        console.print(
            f"{number:,} clips unfit for {table}, {min(now, number):,} of them in this run (no failures; a retry would "
            f"not help): clipmill sql \"SELECT clip_id, reason FROM {table} WHERE status = 'unfit'\" "
            f"--catalog {shlex.quote(catalog.uri)}"
        )
    console.print(f"{_pending_line(outcomes)}; {whole}")
    return code


def in_short(total: Tally) -> str:
    """What a run has done so far: '3 sources done, 1 failed; 12 clips kept, 2 dropped', and rows by table."""
    parts = [
        f"{total.done:,} sources done, {total.failed:,} failed; {total.kept:,} clips kept, {total.dropped:,} dropped"
    ]
    for table in dict.fromkeys(table for table, _ in total.results):
        parts.append(f"{table} {total.results[table, 'done']:,} done, {total.results[table, 'failed']:,} failed")
    return "; ".join(parts)


def _pending_line(outcomes: Sequence[Outcome]) -> str:
    """What is left to do of what these recipes take."""
    sources = sum(one.sources.left for one in outcomes if one.sources is not None)
    clips = sum(one.selection.left for one in outcomes if one.selection is not None)
    return f"pending: {sources:,} sources, {clips:,} clips"


def catalog_line(sql: Any) -> str:
    """What a catalog holds, in counts and hours."""
    states = dict(sql.execute("SELECT status, count(*) FROM sources GROUP BY 1").fetchall())
    verdicts = dict(sql.execute("SELECT verdict, count(*) FROM clips GROUP BY 1").fetchall())
    kept = "SELECT coalesce(sum(end_s - start_s), 0) FROM clips WHERE verdict = 'kept'"
    length = hours(sql.execute(kept).fetchall()[0][0])
    return (
        f"the catalog: {states.get('done', 0):,} sources done, {states.get('failed', 0):,} failed; "
        f"{sum(verdicts.values()):,} clips, {verdicts.get('kept', 0):,} kept ({length} hours), "
        f"{verdicts.get('dropped', 0):,} dropped"
    )


def _failed_now(total: Tally) -> int:
    return total.failed + sum(number for (_, state), number in total.results.items() if state == "failed")


def _heading(outcome: Outcome) -> Iterator[str]:
    """What a recipe took and did, and what its listing left out."""
    plan, sources, total = outcome.plan, outcome.sources, outcome.total
    if sources is not None:
        yield (
            f"{plan.recipe.name}: {sources.listed:,} sources listed; before this run: {sources.already_done:,} done, "
            f"{sources.already_failed:,} failed{_purged(sources.already_purged)}; in this run: {total.done:,} done, "
            f"{total.failed:,} failed{_purged(len(total.purged))}, {hours(total.video_seconds)} hours of video"
        )
        if outcome.listing is not None and outcome.listing.manifests:
            rows = outcome.refreshed or Refreshed(new=sources.listed)
            yield f"rows of manifests: {rows.new:,} new, {rows.changed:,} changed, {rows.same:,} the same"
        for why, number in sorted(outcome.listing.left_out.items()) if outcome.listing is not None else ():
            yield f"left out of the listing: {number:,} {why}"
        if not sources.listed:
            yield "the input names no source: nothing was done"
    elif outcome.selection is not None:
        yield f"{plan.recipe.name}: {outcome.selection.selected:,} clips selected, {outcome.selection.to_do:,} taken"
    else:
        judged = max(total.results[step.stage.table, "done"] for step in plan.global_steps)
        yield f"{plan.recipe.name}: {judged:,} clips compared"


def _purged(sources: int) -> str:
    return f", {sources:,} removed (purged)" if sources else ""


def _stage_row(table: str, total: Tally, selection: Selection | None, unfit: bool) -> tuple[str, ...]:
    before: int = selection.done.get(table, 0) if selection is not None else 0
    now = total.results[table, "done"]
    if selection is not None and total.done:  # what the decode pass handed on is in the catalog by then
        before = max(0, before - now)
    states = ("failed", "unfit") if unfit else ("failed",)
    return table, f"{before:,}", f"{now:,}", *(f"{total.results[table, state]:,}" for state in states)


def rows_by_table(sql: Any, tables: list[str], status: str) -> dict[str, int]:
    """How many rows of state tables have this status, where any have."""
    found = {}
    there = {row[0] for row in sql.execute("SELECT view_name FROM duckdb_views() WHERE schema_name = 'raw'").fetchall()}
    for table in tables:
        if table in there:
            query = f"SELECT count(*) FROM raw.{quote(table)} WHERE status = {literal(status)}"
            found[table] = sql.execute(query).fetchall()[0][0]
    return {table: number for table, number in found.items() if number}


FUNNEL = ("gate", "clips left", "hours left", "share left", "dropped here", "hours dropped")


def funnel_rows(sql: Any, gates: list[str]) -> list[tuple[str, ...]]:
    """For each gate in order, as FUNNEL names it: what is left after it, and what it is the first to drop."""
    length = "coalesce(sum(end_s - start_s), 0)"
    total, seconds = sql.execute(f"SELECT count(*), {length} FROM clips").fetchall()[0]
    query = f"SELECT dropped_by, count(*), {length} FROM clips WHERE verdict = 'dropped' GROUP BY 1"
    lost = {gate: (clips, dropped) for gate, clips, dropped in sql.execute(query).fetchall()}
    films = "SELECT coalesce(sum(duration_s), 0) FROM sources WHERE status = 'done' AND media = 'video'"
    between = sql.execute(films).fetchall()[0][0] - seconds
    rows: list[tuple[str, ...]] = []
    if between > 0.01 * seconds:  # fades and dips, black, and what could not be decoded
        rows.append(("(in no clip)", "", "", "", "", hours(between)))
    rows.append(("(all)", f"{total:,}", hours(seconds), share(total, total), "", ""))
    left, seconds_left = total, seconds
    for gate in dict.fromkeys([*gates, *lost]):
        clips, dropped = lost.get(gate, (0, 0.0))
        left, seconds_left = left - clips, seconds_left - dropped
        cells = (f"{left:,}", hours(seconds_left), share(left, total), f"{clips:,}", hours(dropped) if clips else "")
        rows.append((gate, *cells))
    return rows


def hours(seconds: float) -> str:
    """Hours with about three digits: '1,234', '12.3', '0.012'."""
    found = max(seconds, 0.0) / 3600
    return f"{found:,.0f}" if found >= 100 else f"{found:.1f}" if found >= 10 else f"{found:.3f}"


def share(part: float, whole: float) -> str:
    """A share in percent; nothing where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def report_console() -> Console:
    """Where reports go: as wide as the terminal; where there is none, so wide that no table is folded."""
    width = None if sys.stdout.isatty() else 200
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=True, markup=False)


def table_of(title: str, names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    return table
