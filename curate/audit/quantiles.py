"""The relation `quantiles`: a row for each signal with its least, greatest and mean value and exact quantiles.

DuckDB holds all values of a column for its quantiles, and those of all branches of a UNION ALL together: the rows are
made one after the other, so that a catalog of 10^7 clips needs the memory of one signal.
"""

from __future__ import annotations

from collections.abc import Sequence

from curate.catalog.gates import literal, quote

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
HUGE = 1e100  # values beyond would make mean and deviation overflow


def quantile_rows(signals: Sequence[str], audited: str) -> list[str]:
    """A SELECT for each signal, over the relation `audited` or that of the other side: number, signal, known_clips,
    unknown_clips, least, q (a list of the QUANTILES), greatest, mean, deviation, kept_median.
    """
    return [
        f"SELECT {number} AS number, {literal(name)} AS signal, count({quote(name)}) AS known_clips, "
        f"count(*) - count({quote(name)}) AS unknown_clips, min({quote(name)})::DOUBLE AS least, "
        f"quantile_cont({quote(name)}::DOUBLE, {list(QUANTILES)}) AS q, max({quote(name)})::DOUBLE AS greatest, "
        f"avg({quote(name)}) FILTER (abs({quote(name)}) < {HUGE}) AS mean, "
        f"stddev_pop({quote(name)}) FILTER (abs({quote(name)}) < {HUGE}) AS deviation, "
        f"median({quote(name)}) FILTER (kept)::DOUBLE AS kept_median FROM {audited}"
        for number, name in enumerate(signals)
    ]


def quantile(share: float, of: str = "q") -> str:
    """SQL of one of the quantiles of a row."""
    return f"{of}[{QUANTILES.index(share) + 1}]"
