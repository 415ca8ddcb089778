"""Breaks a metric of clips (PSNR, loss, ...) down by signals of the catalog: for which values is it good or bad?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from curate.errors import UserError

if TYPE_CHECKING:
    import duckdb

# Groups of equal size, except for ties: clips of one value stay together, so that a quantile is an interval of the
# signal. Clips without the signal are a group of their own.
BREAKDOWN = """
WITH judged AS (
    SELECT value, clips.{column} AS signal FROM metric JOIN clips USING (clip_id)
), ranked AS (
    SELECT value, signal, rank() OVER (ORDER BY signal) - 1 AS before, count(*) OVER () AS of_all
    FROM judged WHERE signal IS NOT NULL AND NOT isnan(signal::DOUBLE)
), grouped AS (
    SELECT value, signal, (before * {groups}) // of_all AS quantile FROM ranked
    UNION ALL
    SELECT value, NULL, NULL FROM judged WHERE signal IS NULL OR isnan(signal::DOUBLE)
)
SELECT quantile, min(signal)::DOUBLE, max(signal)::DOUBLE, count(*), avg(value), coalesce(stddev_samp(value), 0)
FROM grouped GROUP BY quantile ORDER BY quantile NULLS LAST
"""


@dataclass(frozen=True)
class Quantile:
    """The metric over clips whose signal is from `low` to `high`; both are None for clips without the signal."""

    signal: str
    low: float | None
    high: float | None
    clips: int
    mean: float  # of the metric
    deviation: float  # of the metric, between clips


def by_signal(
    connection: duckdb.DuckDBPyConnection, values: Mapping[str, float], signals: Sequence[str], groups: int = 4
) -> list[Quantile]:
    """The mean of a metric (PSNR of a clip's reconstruction, its loss, its CLIPSIM, ...), given by clip id, in each of
    `groups` quantiles of each signal. `connection` is that of a catalog; signals are columns of its view `clips`.

    UserError for a signal that is no number there, and for a clip that is not in the catalog.
    """
    if groups < 1:
        raise UserError(f"{groups} groups: at least one")
    numbers = _numbers(connection)
    if unknown := [name for name in signals if name not in numbers]:
        raise UserError(f"{', '.join(unknown)}: no number in this catalog's clips; there are {', '.join(numbers)}")
    table = pa.table({"clip_id": pa.array(list(values), pa.string()), "value": pa.array(values.values(), pa.float64())})
    connection.register("metric", table)
    try:
        ((known,),) = connection.execute("SELECT count(*) FROM metric JOIN clips USING (clip_id)").fetchall()
        if known < len(values) or not values:
            raise UserError(f"{len(values) - known} of {len(values)} clips of the metric are not in this catalog")
        found = []
        for signal in signals:
            rows = connection.execute(BREAKDOWN.format(column=_quoted(signal), groups=groups)).fetchall()
            found += [Quantile(signal, *row[1:]) for row in rows]
        return found
    finally:
        connection.unregister("metric")


def described(found: Sequence[Quantile]) -> list[str]:
    """One line for each quantile, to print."""
    lines = []
    for each in found:
        where = "unknown" if each.low is None else f"{each.low:.4g} to {each.high:.4g}"
        lines.append(f"{each.signal:<16} {where:<24} {each.clips:>7,} clips  {each.mean:.4g} ± {each.deviation:.3g}")
    return lines


def _numbers(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The numeric columns of the view `clips`."""
    rows = connection.execute("SELECT column_name, column_type FROM (DESCRIBE clips)").fetchall()
    kinds = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE")
    return [name for name, kind in rows if kind in kinds]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
