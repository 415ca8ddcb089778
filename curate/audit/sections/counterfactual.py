"""The counterfactual funnel: what each gate costs by itself, what another threshold would change, whom it hits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from curate.audit.figure import Figure
from curate.audit.groups import Group, groups
from curate.audit.subject import Subject
from curate.catalog.gates import literal

HARDEST = 5  # values of a column that are named for a gate


def figures(subject: Subject) -> Iterator[Figure]:
    gates = ("counterfactual.gates", "What each gate drops by itself, and what only it drops")
    moved = ("counterfactual.thresholds", "What another threshold would change")
    hits = ("counterfactual.hits", "Whom each gate hits hardest, against its rate over all clips")
    if not subject.gates:
        for id, title in (gates, moved, hits):
            yield subject.absent(id, title, "a gate in force")
        return
    yield subject.figure(*gates, _gates_sql(subject), "only: clips that come back if this gate alone is taken away")
    if any(gate.thresholds for gate in subject.gates):
        note = "the other gates and thresholds stay as they are; a threshold of 0 does not move"
        yield subject.figure(*moved, _moved_sql(subject), note)
    else:
        yield subject.absent(*moved, "a gate that compares with a number")
    grouped = list(groups(subject))
    if grouped:
        note = f"the {HARDEST} values of each column that lose most clips beyond the gate's rate over all clips"
        yield subject.figure(*hits, _hits_sql(subject, grouped), note)
    else:
        yield subject.absent(*hits, "a column of concepts, languages or licences")


def _gates_sql(subject: Subject) -> str:
    """One scan of the clips for all gates; a list of a value for each gate becomes the rows."""
    fails = [f"NOT {gate.passes}" for gate in subject.gates]
    only = [f"failed = 1 AND {each}" for each in fails]
    columns = {
        "gate": [literal(gate.name) for gate in subject.gates],
        "condition": [literal(gate.gate.where) for gate in subject.gates],
        "if_unknown": [literal(gate.gate.unknown) for gate in subject.gates],
        "unknown_clips": [f"count(*) FILTER ({gate.column} IS NULL)" for gate in subject.gates],
        "dropped_clips": [f"count(*) FILTER ({each})" for each in fails],
        "dropped_hours": [_hours(each) for each in fails],
        "dropped_share": [f"count(*) FILTER ({each}) / nullif(count(*), 0)" for each in fails],
        "only_clips": [f"count(*) FILTER ({each})" for each in only],
        "only_hours": [_hours(each) for each in only],
    }
    return _unnested("number", columns, "audited", len(fails))


def _moved_sql(subject: Subject) -> str:
    columns: dict[str, list[str]] = {name: [] for name in ("gate", "signal", "operator", "threshold", "step", "tried")}
    kept: list[str] = []
    dropped: list[str] = []
    for gate in subject.gates:
        others = f"failed - CAST(NOT {gate.passes} AS INTEGER) = 0"
        for column, moved in gate.moved().items():
            threshold = moved.threshold
            shown = {
                "gate": literal(gate.name),
                "signal": "NULL::VARCHAR" if threshold.signal is None else literal(threshold.signal),
                "operator": literal(threshold.operator),
                "threshold": f"{threshold.value!r}::DOUBLE",
                "step": literal(moved.step),
                "tried": f"{moved.value!r}::DOUBLE",
            }
            for name, text in shown.items():
                columns[name].append(text)
            then = gate.passes_by(column)
            kept.append(f"NOT kept AND {others} AND {then}")
            dropped.append(f"kept AND NOT {then}")
    columns |= {
        "newly_kept_clips": [f"count(*) FILTER ({each})" for each in kept],
        "newly_kept_hours": [_hours(each) for each in kept],
        "newly_dropped_clips": [f"count(*) FILTER ({each})" for each in dropped],
        "newly_dropped_hours": [_hours(each) for each in dropped],
    }
    return _unnested("number", columns, "audited", len(kept))


def _hits_sql(subject: Subject, grouped: Sequence[Group]) -> str:
    """For each column one aggregate with a count for each gate."""
    numbers = range(1, len(subject.gates) + 1)
    names = ", ".join(literal(gate.name) for gate in subject.gates)
    parts = []
    for group in grouped:
        fails = ", ".join(group.fails(gate.column, gate.passes) for gate in subject.gates)
        clips = "sum(clips)" if group.of_sources else "count(*)"
        parts.append(
            f"SELECT {literal(group.name)} AS by_column, CAST({group.column} AS VARCHAR) AS value, "
            f"CAST({clips} AS BIGINT) AS clips, [{fails}]::BIGINT[] AS fails FROM {group.relation} GROUP BY 2"
        )
    return f"""
        WITH counted AS ({" UNION ALL ".join(parts)}),
            each AS (SELECT by_column, value, clips, unnest({list(numbers)}) AS number, unnest([{names}]) AS gate,
                unnest(fails) AS dropped FROM counted),
            rated AS (SELECT *, sum(dropped) OVER every / sum(clips) OVER every AS base_rate FROM each
                WINDOW every AS (PARTITION BY by_column, number)),
            found AS (SELECT *, dropped / clips AS rate, dropped - clips * base_rate AS beyond FROM rated)
        SELECT gate, by_column, value, clips, CAST(dropped AS BIGINT) AS dropped_clips, rate, base_rate,
            rate / nullif(base_rate, 0) AS ratio, beyond
        FROM found WHERE beyond > 0
        QUALIFY row_number() OVER (PARTITION BY by_column, number ORDER BY beyond DESC, value NULLS LAST) <= {HARDEST}
        ORDER BY number, by_column, beyond DESC, value NULLS LAST"""


def _hours(condition: str) -> str:
    return f"coalesce(sum(seconds) FILTER ({condition}), 0) / 3600"


def _unnested(number: str, columns: dict[str, list[str]], relation: str, rows: int) -> str:
    """A query of one row of lists of equal lengths, turned into rows in the lists' order."""
    lists = ", ".join(f"[{', '.join(values)}] AS {name}" for name, values in columns.items())
    shown = ", ".join(f"unnest({name}) AS {name}" for name in columns)
    return f"""
        SELECT * EXCLUDE ({number}) FROM (
            SELECT unnest(range({rows})) AS {number}, {shown} FROM (SELECT {lists} FROM {relation}))
        ORDER BY {number}"""
