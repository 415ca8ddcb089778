"""How much of the hours few sources, domains or concepts hold: shares of the largest, Gini, effective number."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.groups import Group, groups
from curate.audit.subject import Subject
from curate.catalog.gates import literal


def figures(subject: Subject) -> Iterator[Figure]:
    every = [Group("source", "source", "source_id", of_sources=True), *groups(subject)]
    parts = " UNION ALL ".join(_concentration_sql(number, group) for number, group in enumerate(every))
    yield subject.figure(
        "concentration.clips",
        "Concentration of the clips",
        f"SELECT * EXCLUDE (number) FROM ({parts}) ORDER BY number",
        "clips whose value is unknown are left out; gini: 0 where all values have as many clips, near 1 where one has "
        "all; effective: the number of equally frequent values that would be as diverse (exp of the entropy); "
        "simpson: 1 / sum of squared shares",
    )


def _concentration_sql(number: int, group: Group) -> str:
    # Gini by ranks: 2 * sum(rank * x) / (n * sum(x)) - (n + 1) / n, ranks from the least value.
    return f"""
        SELECT {number} AS number, {literal(group.name)} AS by_column, count(*) AS values,
            CAST(sum(clips) AS BIGINT) AS clips, max(share) AS top_1,
            sum(share) FILTER (place <= 10) AS top_10, sum(share) FILTER (place <= 100) AS top_100,
            sum(share) FILTER (place <= ceil(n / 100)) AS top_percent,
            2 * sum((n + 1 - place) * share) / any_value(n) - (any_value(n) + 1) / any_value(n) AS gini,
            exp(-sum(share * ln(share))) AS effective, 1 / sum(share * share) AS simpson
        FROM (SELECT clips, clips / sum(clips) OVER () AS share, row_number() OVER (ORDER BY clips DESC) AS place,
            count(*) OVER () AS n
            FROM (SELECT {group.column} AS value, {group.counts()} FROM {group.relation} GROUP BY 1)
            WHERE value IS NOT NULL)"""
