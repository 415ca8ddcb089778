"""What is printed when a run is over: the funnel by gate, failures by reason, time by stage."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from curate.catalog import Catalog
from curate.committer import Committer
from curate.listing import Listing
from curate.pending import Pending
from curate.plan import Plan
from curate.views import connect


def report_run(
    catalog: Catalog,
    plan: Plan,
    committer: Committer,
    pending: Pending,
    listing: Listing,
    quiet: bool = False,
) -> int:
    """Prints the tables of a run; returns the exit code: 1 where the catalog holds failed sources."""
    with connect(catalog) as sql:
        failed = sql.execute("SELECT count(*) FROM sources WHERE status = 'failed'").fetchall()[0][0]
        funnel = funnel_rows(sql, [gate.name for gate in plan.gates])
    if quiet:
        return 1 if failed else 0
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    counts = committer.counts
    console.print(
        f"{plan.recipe.name}: {pending.listed:,} sources listed; before: {pending.already_done:,} done, "
        f"{pending.already_failed:,} failed; now: {counts['done']:,} done, {counts['failed']:,} failed"
    )
    for reason, number in sorted(listing.left_out.items()):
        console.print(f"left out of the listing: {number:,} {reason}", markup=False)
    if not pending.listed:
        console.print("the input names no source: nothing was done", markup=False)
    console.print(table_of("clips", ("gate", "clips left", "dropped here"), funnel))
    if committer.reasons:
        rows = [(reason, f"{n:,}") for reason, n in committer.reasons.most_common()]
        console.print(table_of("failures of this run", ("reason", "sources"), rows))
    if committer.stage_seconds:
        rows = [(stage, f"{s:,.1f}") for stage, s in Counter(committer.stage_seconds).most_common()]
        console.print(table_of("time by stage", ("stage", "CPU seconds"), rows))
    if failed:
        console.print(
            f"{failed:,} failed sources (--retry-failed takes them again): clipmill sql "
            f"\"SELECT uri, reason FROM sources WHERE status = 'failed'\" --catalog {shlex.quote(catalog.uri)}",
            markup=False,
        )
    return 1 if failed else 0


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


def table_of(title: str, names: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table
