"""Clips to look at: random ones, and for each signal the best, the worst and those at a threshold, each with why."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.subject import Subject
from curate.catalog.gates import literal, quote

EACH = 6  # clips of each kind
MOST_SIGNALS = 40


def figures(subject: Subject) -> Iterator[Figure]:
    picks = [_pick("random", "", "NULL::DOUBLE", "true", "hash(clip_id)", 0)]
    for signal in subject.signals[:MOST_SIGNALS]:
        value = f"{quote(signal)}::DOUBLE"
        known = f"{value} IS NOT NULL"
        picks.append(_pick("lowest", signal, value, known, value, len(picks)))
        picks.append(_pick("highest", signal, value, known, f"-{value}", len(picks)))
        for gate in subject.gates:
            for threshold in gate.thresholds:
                if threshold.is_of(signal):
                    order = f"abs({value} - {threshold.value!r}::DOUBLE)"
                    kind = f"at the threshold {threshold.operator} {threshold.value:.12g}"
                    picks.append(_pick(kind, signal, value, known, order, len(picks)))
    names = ", ".join(literal(gate.name) for gate in subject.gates)
    fails = ", ".join(f"NOT {gate.passes}" for gate in subject.gates)
    why = f"list_where([{names}], [{fails}])" if subject.gates else "CAST([] AS VARCHAR[])"
    yield subject.figure(
        "examples.clips",
        "Clips to look at",
        f"""
        WITH picked AS ({" UNION ALL ".join(picks)})
        SELECT picked.kind, picked.signal, picked.value, clip_id,
            CASE WHEN kept THEN 'kept' ELSE 'dropped' END AS verdict,
            {why} AS failed_gates, found.uri, start_s, start_s + seconds::DOUBLE AS end_s
        FROM picked JOIN audited USING (clip_id) LEFT JOIN (SELECT source_id, uri FROM sources) AS found
            USING (source_id)
        ORDER BY picked.number, picked.place""",
        "lowest and highest values of each signal, and clips next to each threshold; pictures by clip_id are in the "
        "table thumbnails",
    )


def _pick(kind: str, signal: str, value: str, where: str, rank: str, number: int) -> str:
    """The clips of least rank."""
    return (
        f"(SELECT {number} AS number, {literal(kind)} AS kind, {literal(signal)} AS signal, found.value, clip_id, "
        "row_number() OVER (ORDER BY found.rank, found.clip_id) AS place FROM ("
        f"SELECT {value} AS value, {rank} AS rank, clip_id FROM audited WHERE {where} ORDER BY 2, 3 LIMIT {EACH}"
        ") AS found)"
    )
