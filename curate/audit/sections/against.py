"""What the audit is compared with: clips and sources that came and went, verdicts that changed, columns that moved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from curate.audit.columns import JudgedGate
from curate.audit.figure import Audit, Figure
from curate.audit.movement import BOTH, EDGES, LEAST_SHARE, shared_groups
from curate.audit.quantiles import quantile
from curate.audit.subject import Subject
from curate.catalog.gates import literal, quote, referenced_columns

EACH = 6  # clips of each change that are named
MOST = 20  # values of a column
NAMED = 3  # movers in the line that the command prints
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
CAME, WENT, STAYED = "came", "went", "stayed"
NOW_KEPT, NOW_DROPPED = "dropped in the other, kept here", "kept in the other, dropped here"
CHANGE = (
    f"CASE WHEN NOT there THEN '{CAME}' WHEN NOT here THEN '{WENT}' WHEN kept = other_kept THEN '{STAYED}' "
    f"WHEN kept THEN '{NOW_KEPT}' ELSE '{NOW_DROPPED}' END"
)
FARTHEST = "greatest(distance, kept_distance) DESC NULLS LAST"
TITLES = {
    "clips": "Clips that came, went, stayed or changed verdict",
    "sources": "Sources that came, went, stayed or changed",
    "verdicts": "Clips in both that changed verdict, by the gate that decides and by what changed",
    "gates": "The gates of both",
    "movers": "How far each distribution moved, the farthest first",
    "signals": "Signals of both, those that moved farthest first",
    "values": "Values whose share of the clips changed most, by column",
    "scores": "Clips in both whose signals have other values",
    "examples": "Clips that came, went or changed verdict, to look at",
}
MOVED_NOTE = (
    "kept: of the clips that the gates of each side keep; distance, from 0 to 1: of signals that of Kolmogorov and "
    f"Smirnov at {EDGES} quantiles of the other's clips, so of all clips at most {1 / EDGES:.3f} too small; of other "
    "columns the total variation, half the sum of the differences of all shares, unknown being a value. psi: the "
    "population stability index, over the tenths of the other, or the values, with shares of at least "
    f"{LEAST_SHARE}: below 0.1 is commonly called stable, above 0.25 a shift"
)


def figures(subject: Subject) -> Iterator[Figure]:
    other = subject.other
    if other is None:
        for name, title in TITLES.items():
            yield subject.absent(f"against.{name}", title, "something to compare with (--against VERSION or DIR)")
        return
    signals = [name for name in subject.signals if name in other.signals]
    yield _figure(subject, "clips", _CLIPS, "by clip_id: hours of a clip in both are those that it has here")
    yield _figure(subject, "sources", _SOURCES, "by source_id, whole catalogs; bytes: by the hash of the content")
    note = "the gate is the first that drops the clip, on the side where it is dropped"
    yield _figure(subject, "verdicts", _verdicts_sql(subject, other), note)
    if subject.gates or other.gates:
        note = "dropped: by the gate alone, of the clips of that side"
        yield _figure(subject, "gates", _gates_sql(subject, other), note)
    else:
        yield subject.absent("against.gates", TITLES["gates"], "a gate in force on either side")
    movers = f"SELECT * FROM moved ORDER BY {FARTHEST}, kind, name"
    yield _figure(subject, "movers", movers, MOVED_NOTE)
    if signals:
        yield _figure(subject, "signals", _signals_sql(), "quantiles are exact")
        note = "known: it has a value here and had none in the other; unknown: the reverse"
        yield _figure(subject, "scores", _scores_sql(signals), note)
    else:
        for name in ("signals", "scores"):
            yield subject.absent(f"against.{name}", TITLES[name], "a signal that both have")
    if shared_groups(subject, other):
        note = f"at most {MOST} values of each column; a value that is null is unknown"
        yield _figure(subject, "values", _values_sql(subject, other), note)
    else:
        yield subject.absent("against.values", TITLES["values"], "a column of licences, domains or concepts in both")
    yield _figure(subject, "examples", _EXAMPLES, f"at most {EACH} of each change, in the order of a hash")


def comparison(audit: Audit, with_what: str) -> str:
    """One line for a person: what came, went and changed verdict, and what moved farthest."""
    counts: dict[str, int] = {}
    for row in audit.figure("against.clips").records():
        counts[row["change"]] = counts.get(row["change"], 0) + row["clips"]
    far = {row["name"]: _far(row) for row in audit.figure("against.movers").records() if _far(row) > 0}
    farthest = ", ".join(f"{name} ({distance:.2f})" for name, distance in list(far.items())[:NAMED])
    return (
        f"against {with_what}: {counts[CAME]:,} clips came, {counts[WENT]:,} went, "
        f"{counts[NOW_KEPT] + counts[NOW_DROPPED]:,} changed verdict; "
        + (f"moved farthest: {farthest}" if farthest else "no distribution moved")
    )


def _far(row: dict[str, Any]) -> float:
    return max(row["distance"] or 0, row["kept_distance"] or 0)


def _figure(subject: Subject, name: str, text: str, note: str = "") -> Figure:
    return subject.figure(f"against.{name}", TITLES[name], text, note)


def _listed(*rows: tuple[str, ...]) -> str:
    return ", ".join(f"({number}, {', '.join(map(literal, row))})" for number, row in enumerate(rows))


_STATES = _listed(
    *((change, verdict) for change in (CAME, WENT, STAYED) for verdict in ("kept", "dropped")),
    (NOW_KEPT, "kept"),
    (NOW_DROPPED, "dropped"),
)

_CLIPS = f"""
    WITH states(number, change, verdict) AS (VALUES {_STATES}),
        counted AS (SELECT {CHANGE} AS change, CASE WHEN coalesce(kept, other_kept) THEN 'kept' ELSE 'dropped' END
            AS verdict, count(*) AS clips, sum(seconds) AS seconds, count(DISTINCT source_id) AS sources
            FROM compared GROUP BY ALL)
    SELECT change, verdict, coalesce(clips, 0) AS clips, coalesce(seconds, 0) / 3600 AS hours,
        coalesce(sources, 0) AS sources
    FROM states LEFT JOIN counted USING (change, verdict) ORDER BY number"""

_SOURCES = f"""
    SELECT CASE WHEN b.source_id IS NULL THEN '{CAME}' WHEN a.source_id IS NULL THEN '{WENT}'
            WHEN a.content_hash <> b.content_hash THEN 'other bytes'
            WHEN a.status <> b.status THEN 'other status' ELSE '{STAYED}' END AS change,
        b.status AS other_status, a.status AS status, count(*) AS sources, sum(a.clips) AS clips,
        sum(b.clips) AS other_clips, min(coalesce(a.uri, b.uri)) AS example
    FROM sources AS a FULL JOIN other.main.sources AS b ON a.source_id = b.source_id
    GROUP BY ALL ORDER BY change, other_status NULLS FIRST, status NULLS FIRST"""

_EXAMPLES = f"""
    WITH ranked AS (SELECT *, {CHANGE} AS change FROM compared),
        picked AS (SELECT *, row_number() OVER (PARTITION BY change ORDER BY hash(clip_id), clip_id) AS place
            FROM ranked WHERE change <> '{STAYED}' QUALIFY place <= {EACH})
    SELECT change, clip_id, CASE WHEN kept THEN 'kept' WHEN NOT kept THEN 'dropped' END AS verdict, dropped_by,
        CASE WHEN other_kept THEN 'kept' WHEN NOT other_kept THEN 'dropped' END AS other_verdict, other_dropped_by,
        coalesce(mine.uri, theirs.uri) AS uri
    FROM picked LEFT JOIN (SELECT source_id, uri FROM sources) AS mine USING (source_id)
        LEFT JOIN (SELECT source_id, uri FROM other.main.sources) AS theirs USING (source_id)
    ORDER BY change, place"""


def _verdicts_sql(subject: Subject, other: Subject) -> str:
    mine, theirs = _by_name(subject), _by_name(other)
    rows = [(NOW_DROPPED, name, *_cause(subject, gate, theirs.get(name), "new")) for name, gate in mine.items()]
    rows += [(NOW_KEPT, name, *_cause(subject, gate, mine.get(name), "gone")) for name, gate in theirs.items()]
    known = _listed(*rows) if rows else "(0, NULL::VARCHAR, NULL::VARCHAR, NULL::VARCHAR, NULL::VARCHAR)"
    return f"""
        WITH known(number, change, gate, cause, signals) AS (VALUES {known}),
            changed AS (SELECT {CHANGE} AS change, coalesce(dropped_by, other_dropped_by) AS gate, count(*) AS clips,
                sum(seconds) AS seconds FROM compared WHERE here AND there AND kept <> other_kept GROUP BY ALL)
        SELECT change, gate, cause, signals, clips, seconds / 3600 AS hours
        FROM changed LEFT JOIN known USING (change, gate) ORDER BY clips DESC, number"""


def _cause(subject: Subject, gate: JudgedGate, counterpart: JudgedGate | None, alone: str) -> tuple[str, str]:
    """Why clips that this gate drops are not dropped on the side of its counterpart, and the columns that it names."""
    columns = ", ".join(sorted(referenced_columns(subject.sql, gate.gate)))
    if counterpart is None:
        return f"the gate is {alone}", columns
    same = (counterpart.gate.where, counterpart.gate.unknown) == (gate.gate.where, gate.gate.unknown)
    return ("the same gate: the clips' values changed" if same else "the gate has another condition"), columns


def _by_name(subject: Subject) -> dict[str, JudgedGate]:
    return {gate.name: gate for gate in subject.gates}


def _gates_sql(subject: Subject, other: Subject) -> str:
    mine, theirs = _by_name(subject), _by_name(other)
    parts = []
    for number, name in enumerate(dict.fromkeys([*mine, *theirs])):
        here, there = mine.get(name), theirs.get(name)
        change = {(True, False): "only here", (False, True): "only in the other"}.get(
            (here is not None, there is not None),
            "same" if here and there and here.gate == there.gate else "another condition",
        )
        columns = [str(number), literal(name), literal(change), *_of_gate(here, "audited")]
        parts.append("SELECT " + ", ".join([*columns, *_of_gate(there, "other_audited")]))
    names = ("gate", "change", "condition", "if_unknown", "dropped_clips", "other_condition", "other_if_unknown",
             "other_dropped_clips")  # fmt: skip
    return f"""
        SELECT {", ".join(names)} FROM ({" UNION ALL ".join(parts)}) AS found(number, {", ".join(names)})
        ORDER BY number"""


def _of_gate(gate: JudgedGate | None, relation: str) -> list[str]:
    if gate is None:
        return ["NULL::VARCHAR", "NULL::VARCHAR", "NULL::BIGINT"]
    dropped = f"(SELECT count(*) FILTER (NOT {gate.passes}) FROM {relation})"
    return [literal(gate.gate.where), literal(gate.gate.unknown), dropped]


def _signals_sql() -> str:
    shown = ", ".join(
        f"{quantile(share, f'{side}.q')} AS {before}{name}"
        for name, share in QUANTILES.items()
        for side, before in (("a", ""), ("b", "other_"))
    )
    return f"""
        SELECT signal, distance, kept_distance, psi, kept_psi, clips, other_clips, a.mean, b.mean AS other_mean,
            {shown}
        FROM quantiles AS a JOIN other_quantiles AS b USING (signal)
            JOIN moved ON moved.name = signal AND moved.kind = 'signal'
        ORDER BY {FARTHEST}, signal"""


def _scores_sql(signals: list[str]) -> str:
    """One join for all signals; a list of a value for each becomes the rows."""
    columns = {
        "signal": [literal(name) for name in signals],
        "changed_clips": [f"count(*) FILTER (a.{n} <> b.{n})" for n in map(quote, signals)],
        "known_clips": [f"count(*) FILTER (a.{n} IS NOT NULL AND b.{n} IS NULL)" for n in map(quote, signals)],
        "unknown_clips": [f"count(*) FILTER (a.{n} IS NULL AND b.{n} IS NOT NULL)" for n in map(quote, signals)],
        "mean_change": [
            f"avg(a.{n}::DOUBLE - b.{n}) FILTER (isfinite(a.{n}::DOUBLE) AND isfinite(b.{n}::DOUBLE))"
            for n in map(quote, signals)
        ],
    }
    lists = ", ".join(f"[{', '.join(values)}] AS {name}" for name, values in columns.items())
    shown = ", ".join(f"unnest({name}) AS {name}" for name in columns)
    return f"""
        SELECT * FROM (SELECT {shown} FROM (
            SELECT {lists} FROM audited AS a JOIN other_audited AS b ON a.clip_id = b.clip_id))
        ORDER BY changed_clips + known_clips + unknown_clips DESC, signal"""


def _values_sql(subject: Subject, other: Subject) -> str:
    parts = []
    for group in shared_groups(subject, other):
        counted = (
            f"SELECT CAST({group.column} AS VARCHAR) AS value, {group.counts()} FROM {{}}{group.relation} GROUP BY 1"
        )
        sides = [
            f"(SELECT value, CAST(clips AS BIGINT) AS clips, clips / nullif(sum(clips) OVER (), 0) AS share "
            f"FROM ({counted.format(prefix)}))"
            for prefix in ("", "other_")
        ]
        parts.append(
            f"SELECT {literal(group.name)} AS by_column, coalesce(a.value, b.value) AS value, "
            "coalesce(a.clips, 0) AS clips, coalesce(b.clips, 0) AS other_clips, coalesce(a.share, 0) AS share, "
            f"coalesce(b.share, 0) AS other_share FROM {sides[0]} AS a FULL JOIN {sides[1]} AS b "
            "ON a.value IS NOT DISTINCT FROM b.value"
        )
    return f"""
        WITH found AS (SELECT *, share - other_share AS difference FROM ({" UNION ALL ".join(parts)}))
        SELECT found.* FROM found JOIN moved ON moved.name = found.by_column AND moved.kind = 'values'
            AND moved.side = {literal(BOTH)}
        QUALIFY row_number() OVER (PARTITION BY by_column ORDER BY abs(difference) DESC, value NULLS LAST) <= {MOST}
        ORDER BY {FARTHEST}, by_column, abs(difference) DESC, value NULLS LAST"""
