"""Histograms in SQL: bars of equal width over a range that a few extreme values do not stretch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from curate.audit.subject import Subject
from curate.catalog.gates import quote

BARS = 40
TAIL = 0.002  # of the clips at either end may lie beyond the range


@dataclass(frozen=True)
class ValueRange:
    """What the bars of a histogram span, from low to high."""

    low: float
    high: float
    bars: int = BARS


def value_range(subject: Subject, column: str, drawn: Sequence[float] = (), whole: bool = False) -> ValueRange | None:
    """The range of a column of `audited` without its tails, but with the values `drawn` as far as the column's own
    values reach; None where no finite value is known. Of `whole` numbers the edges are whole.
    """
    name = f"{quote(column)}::DOUBLE"
    least, greatest, ends = subject.rows(
        f"SELECT min(x), max(x), quantile_cont(x, [{TAIL}, {1 - TAIL}]) FROM (SELECT {name} AS x FROM audited) "
        "WHERE isfinite(x)"
    )[0]
    if least is None:
        return None
    inside = [value for value in drawn if least <= value <= greatest]
    low, high = min([ends[0], *inside]), max([ends[1], *inside])
    if whole:
        low = float(math.floor(low))
        width = math.ceil((math.floor(high) - low + 1) / BARS)
        bars = math.ceil((math.floor(high) - low + 1) / width)
        return ValueRange(low, low + width * bars, bars)
    return ValueRange(low, high) if high - low > 1e-12 * abs(high) else ValueRange(low, low, 1)


def histogram_sql(column: str, span: ValueRange) -> str:
    """Rows of a bar: at_least, below, clips, hours, kept_clips, kept_hours; of clips whose value is known."""
    low, width = f"{span.low!r}::DOUBLE", f"{(span.high - span.low) / span.bars!r}::DOUBLE"
    at = f"greatest(0, least({span.bars - 1}, floor(({column}::DOUBLE - {low}) / {width})))" if span.bars > 1 else "0"
    return f"""
        WITH counted AS (
            SELECT CAST({at} AS INTEGER) AS bar, count(*) AS clips, sum(seconds) AS seconds,
                count(*) FILTER (kept) AS kept_clips, coalesce(sum(seconds) FILTER (kept), 0) AS kept_seconds
            FROM audited WHERE {column} IS NOT NULL GROUP BY 1)
        SELECT {low} + bar * {width} AS at_least, {low} + (bar + 1) * {width} AS below,
            coalesce(clips, 0) AS clips, coalesce(seconds, 0) / 3600 AS hours,
            coalesce(kept_clips, 0) AS kept_clips, coalesce(kept_seconds, 0) / 3600 AS kept_hours
        FROM (SELECT unnest(range({span.bars})) AS bar) LEFT JOIN counted USING (bar) ORDER BY bar"""
