"""What failed: sources and clips by reason, with examples."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.subject import Subject
from curate.catalog.gates import literal, quote

MOST = 100  # reasons
SHOWN = 300  # characters of a reason


def figures(subject: Subject) -> Iterator[Figure]:
    yield subject.figure(
        "failures.sources",
        "Sources that failed, by reason",
        f"""
        SELECT coalesce(split_part(reason, ':', 1), 'unknown') AS reason, count(*) AS sources, sum(bytes) AS bytes,
            min(uri) AS example, substr(arg_min(reason, uri), 1, {SHOWN}) AS said
        FROM sources WHERE status = 'failed' GROUP BY 1 ORDER BY sources DESC, reason LIMIT {MOST}""",
        f"of all sources of the catalog; at most {MOST} reasons",
    )
    yield subject.figure(
        "failures.empty",
        "Sources that are done without a clip, by reason",
        f"""
        SELECT coalesce(reason, 'unknown') AS reason, count(*) AS sources, sum(bytes) AS bytes, min(uri) AS example
        FROM sources WHERE status = 'done' AND clips = 0 GROUP BY 1 ORDER BY sources DESC, reason LIMIT {MOST}""",
    )
    stages = [name for name in subject.stage_tables if {"status", "reason"} <= set(subject.tables[name])]
    title = "Clips of which a stage failed, or which it does not take (unfit), by reason"
    if not stages:
        yield subject.absent("failures.stages", title, "a stage on clips")
        return
    parts = " UNION ALL ".join(
        f"SELECT {literal(name)} AS table_name, status, coalesce(split_part(reason, ':', 1), 'unknown') AS reason, "
        f"count(*) AS clips, min(clip_id) AS example, substr(arg_min(reason, clip_id), 1, {SHOWN}) AS said "
        f"FROM {quote(name)} WHERE status <> 'done' GROUP BY 2, 3"
        for name in stages
    )
    text = f"SELECT * FROM ({parts}) ORDER BY table_name, clips DESC, reason LIMIT {MOST}"
    yield subject.figure("failures.stages", title, text, "of all clips of the catalog")
