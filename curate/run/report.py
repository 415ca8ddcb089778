"""What is printed when a run is over: the funnel by gate, failures by reason, time by stage."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from curate.catalog.catalog import Catalog
from curate.catalog.gates import quote
from curate.catalog.views import connect
from curate.engines.tally import Tally
from curate.recipe.plan import Plan
from curate.run.listing import Listing
from curate.run.pending import PendingSources
from curate.run.selection import Selection


def report_run(
    catalog: Catalog,
    plan: Plan,
    total: Tally,
    sources: PendingSources | None,
    selection: Selection | None,
    listing: Listing | None,
    quiet: bool = False,
) -> int:
    """Prints the tables of a run; returns the exit code: 1 where the catalog holds failed sources or clips."""
    with connect(catalog) as sql:
        failed = failed_by_table(sql, list(plan.state_tables))
        funnel = funnel_rows(sql, [gate.name for gate in catalog.gates()])
    if quiet:
        return 1 if failed else 0
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if sources is not None:
        console.print(
            f"{plan.recipe.name}: {sources.listed:,} sources listed; before: {sources.already_done:,} done, "
            f"{sources.already_failed:,} failed; now: {total.done:,} done, {total.failed:,} failed"
        )
        for why, number in sorted(listing.left_out.items()) if listing is not None else ():
            console.print(f"left out of the listing: {number:,} {why}", markup=False)
        if not sources.listed:
            console.print("the input names no source: nothing was done", markup=False)
    elif selection is not None:
        console.print(f"{plan.recipe.name}: {selection.selected:,} clips selected, {selection.to_do:,} taken")
    else:
        judged = max(total.results[step.stage.table, "done"] for step in plan.global_steps)
        console.print(f"{plan.recipe.name}: {judged:,} clips compared")
    console.print(table_of("clips", ("gate", "clips left", "dropped here"), funnel))
    if len(plan.state_tables) > (sources is not None):
        rows = [_stage_row(table, total, selection) for table in plan.state_tables if table != "sources"]
        console.print(table_of("clips by stage", ("table", "done before", "done now", "failed now"), rows))
    if total.reasons:
        reasons = [(reason, f"{n:,}") for reason, n in total.reasons.most_common()]
        console.print(table_of("failures of this run", ("reason", "number"), reasons))
    if total.stage_seconds:
        seconds = [(stage, f"{s:,.1f}") for stage, s in total.stage_seconds.most_common()]
        console.print(table_of("time by stage", ("stage", "CPU seconds"), seconds))
    for table, number in failed.items():
        named, columns = ("sources", "uri, reason") if table == "sources" else (f"clips in {table}", "clip_id, reason")
        console.print(
            f"{number:,} failed {named} (--retry-failed takes them again): clipmill sql "
            f"\"SELECT {columns} FROM {table} WHERE status = 'failed'\" --catalog {shlex.quote(catalog.uri)}",
            markup=False,
        )
    return 1 if failed else 0


def _stage_row(table: str, total: Tally, selection: Selection | None) -> tuple[str, str, str, str]:
    before: int = selection.done.get(table, 0) if selection is not None else 0
    now, failed = total.results[table, "done"], total.results[table, "failed"]
    if selection is not None and total.done:  # what the decode pass handed on is in the catalog by then
        before = max(0, before - now)
    return table, f"{before:,}", f"{now:,}", f"{failed:,}"


def failed_by_table(sql: Any, tables: list[str]) -> dict[str, int]:
    """How many rows of state tables say 'failed', where any do."""
    found = {}
    there = {row[0] for row in sql.execute("SELECT view_name FROM duckdb_views() WHERE schema_name = 'raw'").fetchall()}
    for table in tables:
        if table in there:
            query = f"SELECT count(*) FROM raw.{quote(table)} WHERE status = 'failed'"
            found[table] = sql.execute(query).fetchall()[0][0]
    return {table: number for table, number in found.items() if number}


def funnel_rows(sql: Any, gates: list[str]) -> list[tuple[str, str, str]]:
    """(gate, clips left after it, clips whose first failed gate it is), in the order of the gates."""
    total = sql.execute("SELECT count(*) FROM clips").fetchall()[0][0]
    lost = dict(sql.execute("SELECT dropped_by, count(*) FROM clips WHERE verdict = 'dropped' GROUP BY 1").fetchall())
    rows = [("(all)", f"{total:,}", "")]
    left = total
    for gate in dict.fromkeys([*gates, *lost]):
        left -= lost.get(gate, 0)
        rows.append((gate, f"{left:,}", f"{lost.get(gate, 0):,}"))
    return rows


def table_of(title: str, names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table
