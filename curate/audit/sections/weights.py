"""What a trainer sees: the composition after weights beside that of the stored clips."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.groups import groups
from curate.audit.subject import Subject
from curate.catalog.gates import literal

MOST = 20  # values of a column


def figures(subject: Subject) -> Iterator[Figure]:
    samples = ("weights.samples", "Weights of the samples")
    composition = ("weights.composition", "Composition of what is drawn, beside that of what is stored")
    if not subject.has("weight"):
        for id, title in (samples, composition):
            yield subject.absent(id, title, "weights (audit a dataset, or select a column weight)")
        return
    yield subject.figure(
        *samples,
        "SELECT count(weight) AS samples, count(*) FILTER (weight = 0) AS of_weight_0, sum(weight) AS weight, "
        "min(weight) AS least, median(weight) AS median, max(weight) AS greatest, "
        "sum(weight) * sum(weight) / nullif(sum(weight * weight), 0) AS effective_samples, "
        "sum(seconds) / 3600 AS hours, sum(weight * seconds) / nullif(sum(weight), 0) AS drawn_seconds_mean "
        "FROM audited",
        "effective: the number of equally weighted samples whose mean would scatter as much (Kish 1965)",
    )
    grouped = list(groups(subject))
    if not grouped:
        yield subject.absent(*composition, "a column to group by")
        return
    parts = " UNION ALL ".join(
        f"SELECT {number} AS number, {literal(group.name)} AS by_column, value::VARCHAR AS value, clips, weight "
        f"FROM (SELECT {group.column} AS value, {group.counts(weighted=True)} FROM {group.relation} GROUP BY 1)"
        for number, group in enumerate(grouped)
    )
    yield subject.figure(
        *composition,
        f"""
        WITH shared AS (SELECT number, by_column, value, clips, weight,
                clips / nullif(sum(clips) OVER every, 0) AS stored_share,
                weight / nullif(sum(weight) OVER every, 0) AS drawn_share
            FROM ({parts}) WINDOW every AS (PARTITION BY number))
        SELECT by_column, value, CAST(clips AS BIGINT) AS clips, stored_share, drawn_share,
            drawn_share / nullif(stored_share, 0) AS ratio
        FROM shared
        QUALIFY row_number() OVER (PARTITION BY number ORDER BY abs(drawn_share - stored_share) DESC, value) <= {MOST}
        ORDER BY number, abs(drawn_share - stored_share) DESC, value""",
        f"the {MOST} values of each column whose share differs most",
    )
