"""Histograms in SQL: bars of equal width over a range that a few extreme values do not stretch."""

from __future__ import annotations

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

    def edge(self, number: int) -> float:
        return self.low + (self.high - self.low) * number / self.bars


def value_range(subject: Subject, column: str, drawn: Sequence[float] = (), bars: int = BARS) -> ValueRange | None:
    """The range of a column of `audited` without its tails, but with the values `drawn` as far as the column's own
    values reach; None where no value is known.
    """
    name = f"{quote(column)}::DOUBLE"
    least, greatest, ends = subject.rows(
        f"SELECT min({name}), max({name}), quantile_cont({name}, [{TAIL}, {1 - TAIL}]) FROM audited"
    )[0]
    if least is None:
        return None
    inside = [value for value in drawn if least <= value <= greatest]
    low, high = min([ends[0], *inside]), max([ends[1], *inside])
    if low == high:
        return ValueRange(low, high, 1)
    return ValueRange(low, high, bars)


def histogram_sql(column: str, span: ValueRange) -> str:
    """Rows of a bar: at_least, below, clips, hours, kept_clips, kept_hours; of clips whose value is known."""
    width = (span.high - span.low) / span.bars
    at = f"greatest(0, least({span.bars - 1}, floor(({column}::DOUBLE - {span.low!r}) / {width!r})))" if width else "0"
    return f"""
        WITH counted AS (
            SELECT CAST({at} AS INTEGER) AS bar, count(*) AS clips, sum(seconds) AS seconds,
                count(*) FILTER (kept) AS kept_clips, coalesce(sum(seconds) FILTER (kept), 0) AS kept_seconds
            FROM audited WHERE {column} IS NOT NULL GROUP BY 1)
        SELECT {span.low!r} + bar * {width!r} AS at_least, {span.low!r} + (bar + 1) * {width!r} AS below,
            coalesce(clips, 0) AS clips, coalesce(seconds, 0) / 3600 AS hours,
            coalesce(kept_clips, 0) AS kept_clips, coalesce(kept_seconds, 0) / 3600 AS kept_hours
        FROM (SELECT unnest(range({span.bars})) AS bar) LEFT JOIN counted USING (bar) ORDER BY bar"""
