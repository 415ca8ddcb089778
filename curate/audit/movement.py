"""The relations that compare two sides: clips of either, and how far the distribution of each column moved."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.groups import Group, groups
from curate.audit.subject import Subject
from curate.catalog.gates import literal, quote

EDGES = 200  # quantiles of the other side at which cumulative shares are compared
TENTHS = 10  # bins of the population stability index
LEAST_SHARE = 1e-4  # of a bin in the index, whose logarithm an empty bin would make infinite
SIGNAL, VALUES = "signal", "values"  # kinds of columns: numbers, and others by their values
MEASURED = (
    "clips", "other_clips", "unknown_share", "other_unknown_share", "distance", "psi", "kept_distance", "kept_psi",
)  # fmt: skip
BOTH, HERE, THERE = "both", "only here", "only in the other"


def compared_relations(subject: Subject, other: Subject) -> dict[str, list[str]]:
    """SQL of the parts of `compared`, a row for each clip of either side, and of `moved`, a row for each column.

    The columns of `compared` for the other side begin with `other_`. `moved` has kind, name, side and those of
    MEASURED: clips with a value, shares without one, distance and psi. The distance, from 0 to 1, is that of Kolmogorov
    and Smirnov for signals, of total variation for others: the greatest difference of the shares of clips below a
    value, or of any set of values. psi is the population stability index, sum of (p - q) * ln(p / q).
    Those that begin with `kept_` are of the clips that the gates of each side keep.
    """
    return {"compared": [_COMPARED], "moved": [_NOTHING_MOVED, *_moved(subject, other)]}


def shared_groups(subject: Subject, other: Subject) -> list[Group]:
    """The columns by which the clips of both sides can be counted."""
    theirs = {group.name for group in groups(other)}
    return [group for group in groups(subject) if group.name in theirs]


def _moved(subject: Subject, other: Subject) -> Iterator[str]:
    for name in dict.fromkeys([*subject.signals, *other.signals]):
        if name in subject.signals and name in other.signals:
            yield _signal_sql(name)
        else:
            yield _one_sided_sql(SIGNAL, name, HERE if name in subject.signals else THERE)
    shared = {group.name: group for group in shared_groups(subject, other)}
    for side, found in ((HERE, groups(subject)), (THERE, groups(other))):
        for group in found:
            if group.name not in shared:
                yield _one_sided_sql(VALUES, group.name, side)
    for group in shared.values():
        yield _group_sql(group)


_COMPARED = """
    SELECT coalesce(a.clip_id, b.clip_id) AS clip_id, coalesce(a.source_id, b.source_id) AS source_id,
        coalesce(a.seconds, b.seconds) AS seconds, a.clip_id IS NOT NULL AS here, b.clip_id IS NOT NULL AS there,
        a.kept, b.kept AS other_kept, a.dropped_by, b.dropped_by AS other_dropped_by
    FROM audited AS a FULL JOIN other_audited AS b ON a.clip_id = b.clip_id"""

# Names and types of the columns, for a comparison without any column.
_NOTHING_MOVED = (
    """
    SELECT NULL::VARCHAR AS kind, NULL::VARCHAR AS name, NULL::VARCHAR AS side, """
    + ", ".join(f"NULL::{'BIGINT' if name.endswith('clips') else 'DOUBLE'} AS {name}" for name in MEASURED)
    + " WHERE false"
)


def _one_sided_sql(kind: str, name: str, side: str) -> str:
    return f"SELECT {literal(kind)}, {literal(name)}, {literal(side)}, {', '.join(['NULL'] * len(MEASURED))}"


def _signal_sql(name: str) -> str:
    """Both sides are counted between the same edges, quantiles of the other side; a bin holds what is at most its
    edge. The tenths of the index are those of the other side, as far as edges fall together.
    """
    value = f"{quote(name)}::DOUBLE"
    shares = [number / EDGES for number in range(1, EDGES + 1)]
    bins = f"map_entries(histogram({value}, (SELECT edges FROM cut)){{}})"
    counted = f"{bins.format('')} AS bins, {bins.format(' FILTER (kept)')} AS kept_bins, count({value}) AS n, "
    counted += "count(*) AS every"
    distances = ", ".join(
        f"(SELECT max(abs(share - other_share)) FROM upto WHERE kept = {kept}), "
        f"(SELECT {_psi()} FROM tenths WHERE kept = {kept})"
        for kept in ("false", "true")
    )
    return f"""
        SELECT * FROM (
            WITH cut AS (SELECT coalesce(list_sort(list_distinct(quantile_cont({value}, {shares}))), [0]) AS edges
                    FROM other_audited WHERE isfinite({value})),
                a AS (SELECT {counted} FROM audited), b AS (SELECT {counted} FROM other_audited),
                bins AS (SELECT kept, edge, sum(clips) AS clips, sum(other_clips) AS other_clips
                    FROM ({" UNION ALL ".join(_bins_sql())}) GROUP BY ALL),
                upto AS (SELECT kept, clips, other_clips, sum(clips) OVER below / nullif(sum(clips) OVER every, 0)
                            AS share,
                        sum(other_clips) OVER below / nullif(sum(other_clips) OVER every, 0) AS other_share,
                        clips / nullif(sum(clips) OVER every, 0) AS p,
                        other_clips / nullif(sum(other_clips) OVER every, 0) AS q,
                        (2 * sum(other_clips) OVER below - other_clips) * {TENTHS}
                            // nullif(2 * sum(other_clips) OVER every, 0) AS tenth
                    FROM bins WINDOW below AS (PARTITION BY kept ORDER BY edge), every AS (PARTITION BY kept)),
                tenths AS (SELECT kept, {_sum("p")} AS p, {_sum("q")} AS q FROM upto
                    GROUP BY kept, least({TENTHS - 1}, tenth))
            SELECT {literal(SIGNAL)}, {literal(name)}, {literal(BOTH)}, a.n, b.n,
                1 - a.n / nullif(a.every, 0), 1 - b.n / nullif(b.every, 0), {distances}
            FROM a, b)"""


def _bins_sql() -> Iterator[str]:
    for kept, bins in (("false", "bins"), ("true", "kept_bins")):
        for side, counts in (("a", ("{}", "0")), ("b", ("0", "{}"))):
            clips, other_clips = (each.format(f"unnest({bins}).value") for each in counts)
            edge = f"{kept} AS kept, unnest({bins}).key AS edge"
            yield f"SELECT {edge}, {clips} AS clips, {other_clips} AS other_clips FROM {side}"


def _group_sql(group: Group) -> str:
    counted = f"SELECT CAST({group.column} AS VARCHAR) AS value, {group.counts()} FROM {{}}{group.relation} GROUP BY 1"

    def shares(column: str) -> str:
        return f"""
            SELECT coalesce(a.value, b.value) AS value, coalesce(a.{column}, 0) AS clips,
                coalesce(b.{column}, 0) AS other_clips,
                coalesce(a.{column}, 0) / (SELECT nullif(sum({column}), 0) FROM a) AS p,
                coalesce(b.{column}, 0) / (SELECT nullif(sum({column}), 0) FROM b) AS q
            FROM a FULL JOIN b ON a.value IS NOT DISTINCT FROM b.value"""

    distance = f"{_sum('abs(p - q)')} / 2"
    return f"""
        SELECT * FROM (
            WITH a AS ({counted.format("")}), b AS ({counted.format("other_")}),
                shares AS ({shares("clips")}), kept_shares AS ({shares("kept_clips")})
            SELECT {literal(VALUES)}, {literal(group.name)}, {literal(BOTH)},
                CAST(coalesce(sum(clips) FILTER (value IS NOT NULL), 0) AS BIGINT),
                CAST(coalesce(sum(other_clips) FILTER (value IS NOT NULL), 0) AS BIGINT),
                coalesce(sum(p) FILTER (value IS NULL), 0), coalesce(sum(q) FILTER (value IS NULL), 0),
                {distance}, {_psi()},
                (SELECT {distance} FROM kept_shares), (SELECT {_psi()} FROM kept_shares)
            FROM shares)"""


def _psi() -> str:
    """The index of shares p and q; NULL where either side has no clip."""
    p, q = (f"greatest({each}, {LEAST_SHARE})" for each in "pq")
    return _sum(f"CASE WHEN p IS NOT NULL AND q IS NOT NULL THEN ({p} - {q}) * ln({p} / {q}) END")


def _sum(term: str) -> str:
    """The sum of a term of shares p and q in an order of its own: the same to the last digit at every time."""
    return f"sum({term} ORDER BY p, q)"
