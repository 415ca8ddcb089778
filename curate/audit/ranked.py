"""Counts of clips by a column: the most frequent values, and one row for all others, so that rows sum to the whole."""

from __future__ import annotations

from curate.audit.groups import Group

MOST = 50  # values that have rows of their own
REST_NOTE = f"at most {MOST} values; a row of more than one value is the rest, so that rows sum to all clips"


def ranked_sql(group: Group, weighted: bool = False, most: int = MOST) -> str:
    """Rows of a value: value (NULL: unknown), how many values the row stands for, clips, share, hours, kept_clips,
    kept_hours, kept_share, of sources their number, and with `weighted` the share of the weights.
    """
    summed = ["clips", "seconds", "kept_clips", "kept_seconds"]
    summed += (["sources"] if group.of_sources else []) + (["weight"] if weighted else [])
    sums = ", ".join(f"sum({name}) AS {name}" for name in summed)
    counts = ", ".join(f"CAST({name} AS BIGINT) AS {name}" for name in ["clips"])
    extra = "CAST(sources AS BIGINT) AS sources, " if group.of_sources else ""
    tail = ", weight / nullif(sum(weight) OVER (), 0) AS weighted_share" if weighted else ""
    return f"""
        WITH counted AS (
            SELECT CAST({group.column} AS VARCHAR) AS value, {group.counts(weighted)} FROM {group.relation} GROUP BY 1),
            placed AS (SELECT *, least({most + 1}, row_number() OVER (
                ORDER BY clips DESC, value IS NULL, value)) AS place FROM counted),
            summed AS (SELECT place, CASE WHEN place <= {most} THEN any_value(value) END AS value, count(*) AS values,
                {sums} FROM placed GROUP BY place)
        SELECT value, values, {extra}{counts}, clips / nullif(sum(clips) OVER (), 0) AS share, seconds / 3600 AS hours,
            CAST(kept_clips AS BIGINT) AS kept_clips, kept_seconds / 3600 AS kept_hours,
            kept_clips / nullif(sum(kept_clips) OVER (), 0) AS kept_share{tail}
        FROM summed ORDER BY place"""
