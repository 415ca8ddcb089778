"""`clipmill status`: what is done, failed and pending, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from curate.catalog.catalog import Catalog
from curate.catalog.gates import quote
from curate.catalog.state import owner
from curate.catalog.views import connect
from curate.removal.memory import purged_sources
from curate.run.listed import list_again
from curate.run.presence import Presence, what_to_do
from curate.run.report import FUNNEL, funnel_rows, hours, report_console, table_of
from curate.run.verify_sources import SourceProblem, source_problems
from curate.shards.changed import find_changed
from curate.shards.inventory import tables_with_shards

FOLDERS = 3  # that are named
STATES = ("done", "failed", "unfit")  # of a row of a stage on clips
REASONS = ("reason", "table", "status", "clips")
MOST_REASONS = 10  # of a table that are shown


def print_status(catalog: Catalog, check: bool = False) -> int:
    """Counts from the catalog, and what listings say now: pending sources by those of the runs' inputs, vanished ones
    by those of the folders that sources lie in. `check` looks at each source instead.
    """
    console = report_console()
    with connect(catalog) as sql:
        states = dict(sql.execute("SELECT status, count(*) FROM sources GROUP BY 1").fetchall())
        watched = sql.execute("SELECT coalesce(sum(duration_s), 0) FROM sources WHERE status = 'done'").fetchall()[0][0]
        reasons = sql.execute(
            "SELECT split_part(reason, ':', 1), count(*) FROM sources WHERE status = 'failed' "
            "GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        empty = sql.execute(
            "SELECT reason, count(*) FROM sources WHERE status = 'done' AND clips = 0 GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        clips = funnel_rows(sql, [gate.name for gate in catalog.gates()])
        runs = sql.execute(
            "SELECT recipe, run_id[:8], status, engine, strftime(started_at, '%Y-%m-%d %H:%M:%S') "
            "FROM runs ORDER BY started_at DESC LIMIT 5"
        ).fetchall()
        stale = sql.execute(
            "SELECT count(*) FROM sources WHERE settings <> (SELECT max_by(json_extract_string(settings, '$.sources'), "
            "started_at) FROM runs WHERE json_extract_string(settings, '$.sources') IS NOT NULL)"
        ).fetchall()[0][0]
        stages, clip_reasons = _stages(catalog, sql), _clip_reasons(catalog, sql)
        changed = [found for table in tables_with_shards(sql) if (found := find_changed(sql, table)) is not None]
        listed = list_again(sql, catalog)
        purged = purged_sources(catalog)
        vanished = list(_checked(catalog) if check else _vanished(sql, catalog))
    done, failed = states.get("done", 0), states.get("failed", 0)
    counted = f"{listed.pending:,}" if listed.known else "unknown"
    console.print(
        f"sources: {done:,} done ({hours(watched)} hours), {failed:,} failed, {counted} pending"
        + (f", {purged:,} removed (purged)" if purged else "")
    )
    if stale:
        console.print(f"{stale:,} of them are still from before the last run's stages changed: run it again")
    for line in listed.out_of_reach:
        console.print(f"pending is not known: {line}")
    for line in vanished:
        console.print(line)
    if reasons:
        console.print(table_of("failed", ("reason", "sources"), [(r, f"{n:,}") for r, n in reasons]))
    if empty:
        rows = [(reason or "not known", f"{n:,}") for reason, n in empty]
        console.print(table_of("done without a clip", ("reason", "sources"), rows))
    console.print(table_of("clips", FUNNEL, clips))
    if stages:
        shown = STATES if any(counts.get("unfit") for _, counts, _ in stages) else STATES[:2]
        rows_of = [(name, *(f"{counts.get(s, 0):,}" for s in shown), f"{left:,}") for name, counts, left in stages]
        console.print(table_of("clips by stage", ("table", *shown, "kept clips without"), rows_of))
    if clip_reasons:
        console.print(table_of("kept clips that a stage has not done", REASONS, clip_reasons))
    for one in changed:
        console.print(one.line(catalog))
    if runs:
        console.print(table_of("last runs (UTC)", ("recipe", "run", "status", "engine", "started"), runs))
    return 0


def _vanished(sql: Any, catalog: Catalog) -> Iterator[str]:
    """What the listings of folders say of done sources that are no longer there."""
    presence, first, number = Presence(sql), "", 0
    for source in presence:
        first, number = first or source.uri, number + 1
    if number:
        yield f"{number:,} done sources are no longer there, such as {first}: {what_to_do(catalog.uri)}"
    for folder, lost in presence.lost_folders.most_common(FOLDERS):
        yield f"the folder {folder} with {lost:,} of them is not there"
    for reason, unseen in presence.unseen.most_common(FOLDERS):
        yield f"{unseen:,} done sources were not looked for ({reason}): --check looks at each one"


def _checked(catalog: Catalog) -> Iterator[str]:
    """What a look at each done source says: how many have which problem, and the first of them."""
    counts, first = Counter[str](), dict[str, SourceProblem]()
    for problem in source_problems(catalog):
        counts[problem.kind] += 1
        first.setdefault(problem.kind, problem)
    if not counts:
        yield "all done sources are there, as they were scanned"
    if "gone" in first:
        uri = first["gone"].uri
        yield f"{counts['gone']:,} done sources are no longer there, such as {uri}: {what_to_do(catalog.uri)}"
    if "changed" in first:
        uri = first["changed"].uri
        changed = f"{counts['changed']:,} done sources were changed since they were scanned"
        yield f"{changed}, such as {uri}: run with --rebuild"
    if "unreadable" in first:
        yield f"{counts['unreadable']:,} done sources can't be looked at: {first['unreadable']}"


def _stages(catalog: Catalog, sql: Any) -> list[tuple[str, dict[str, int], int]]:
    """Each table of a stage on clips, how many of its rows have which status, and kept clips that it has not done."""
    rows: list[tuple[str, dict[str, int], int]] = []
    for name in _stage_tables(catalog):
        states = dict(sql.execute(f"SELECT status, count(*) FROM {quote(name)} GROUP BY 1").fetchall())
        without = sql.execute(
            f"SELECT count(*) FROM clips WHERE verdict = 'kept' AND clip_id NOT IN "
            f"(SELECT clip_id FROM {quote(name)} WHERE status = 'done')"
        ).fetchall()[0][0]
        rows.append((name, states, without))
    return rows


def _clip_reasons(catalog: Catalog, sql: Any) -> list[tuple[str, ...]]:
    """Why kept clips are not done by a stage: reasons without their figures, the most frequent first."""
    rows: list[tuple[str, ...]] = []
    for name in _stage_tables(catalog):
        if "reason" not in {row[0] for row in sql.execute(f"DESCRIBE {quote(name)}").fetchall()}:
            continue  # of a stage over all clips, which fails none
        found = sql.execute(
            f"SELECT split_part(reason, ':', 1), status, count(*) FROM {quote(name)} WHERE status <> 'done' "
            "AND clip_id IN (SELECT clip_id FROM clips WHERE verdict = 'kept') "
            f"GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {MOST_REASONS}"
        ).fetchall()
        rows += [(reason, name, status, f"{number:,}") for reason, status, number in found]
    return rows


def _stage_tables(catalog: Catalog) -> list[str]:
    """The tables of stages on clips."""
    tables = ((name, catalog.table(name)) for name in catalog.tables())
    return [name for name, table in tables if table is not None and owner(table) == (name, "clip_id")]
