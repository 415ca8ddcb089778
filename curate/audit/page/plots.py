"""Which figures are plotted and how: figures that have the same columns look alike, others are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from curate.audit.figure import Audit, Figure
from curate.audit.page import charts
from curate.audit.page.charts import Plot
from curate.audit.page.values import UNKNOWN, number, text
from curate.audit.sections.against import NOW_DROPPED, NOW_KEPT

MOST = 15  # bars of a plot; the table has all rows
SEEN = 0.005  # of the longest bar: a smaller difference is not drawn


@dataclass(frozen=True)
class Bars:
    """Bars of a column, and of another column that is a part of it."""

    labels: Sequence[str]  # columns that name a bar
    whole: str
    part: str | None = None


@dataclass(frozen=True)
class Moves:
    """Two values of a row, joined by a line: what it was or would be, and what it is."""

    labels: Sequence[str]
    before: str
    after: str
    order: str | None = None  # the rows with most of this column; None: in their order


SHORT = {NOW_KEPT: "dropped, now kept", NOW_DROPPED: "kept, now dropped"}  # values that are long for a name of a bar
RANKED = Bars(("value",), "clips", "kept_clips")
BARS = {
    "funnel.sources": Bars(("state", "reason"), "sources"),
    "funnel.hours": Bars(("step",), "hours"),
    "funnel.not_encoded": Bars(("reason",), "clips"),
    "counterfactual.gates": Bars(("gate",), "dropped_clips", "only_clips"),
    "composition.source": Bars(("uri",), "hours", "kept_hours"),
    "composition.domain_top": Bars(("domain",), "hours", "kept_hours"),
    "concentration.clips": Bars(("by_column",), "top_10", "top_1"),
    "duplicates.kinds": Bars(("kind",), "clips", "redundant_clips"),
    "duplicates.sizes": Bars(("size",), "clusters"),
    "unknown.clips": Bars(("column_name",), "unknown_share"),
    "unknown.gates": Bars(("gate",), "unknown_share"),
    "unknown.sources": Bars(("column_name",), "unknown_share"),
    "leakage.shared": Bars(("one", "other", "kind"), "other_share"),
    "against.clips": Bars(("change", "verdict"), "clips"),
    "against.verdicts": Bars(("change", "gate"), "clips"),
    "failures.sources": Bars(("reason",), "sources"),
    "failures.empty": Bars(("reason",), "sources"),
    "failures.stages": Bars(("table_name", "reason"), "clips"),
    "runs.stage_seconds": Bars(("recipe", "stage"), "cpu_hours"),
}
MOVES = {
    "counterfactual.hits": Moves(("gate", "by_column", "value"), "base_rate", "rate", "beyond"),
    "weights.composition": Moves(("by_column", "value"), "stored_share", "drawn_share"),
    "against.values": Moves(("by_column", "value"), "other_share", "share"),
}


def plot(figure: Figure, audit: Audit) -> Plot | None:
    """The plot of a figure; None for one that is read as a table."""
    if (own := OWN.get(figure.id)) is not None:
        return own(figure) if figure.rows else None
    if {"at_least", "below", "clips"} <= set(figure.columns):
        return _histogram(figure, audit)
    if {"value", "values", "clips", "kept_clips"} <= set(figure.columns):
        return _bars(figure, RANKED) if len(figure.rows) > 1 else None
    if (bars := BARS.get(figure.id)) is not None:
        return _bars(figure, bars)
    if (moves := MOVES.get(figure.id)) is not None:
        return _moves(figure, moves)
    return None


def _bars(figure: Figure, bars: Bars) -> Plot | None:
    rows = [row for row in figure.records() if row[bars.whole] is not None]
    if not any(row[bars.whole] for row in rows):
        return None
    shown = [
        (_label(row, bars.labels), row[bars.whole], None if bars.part is None else row[bars.part] or 0)
        for row in rows[:MOST]
    ]
    return charts.bars(shown, bars.whole, bars.part, len(rows))


def _moves(figure: Figure, moves: Moves) -> Plot | None:
    rows = [row for row in figure.records() if row[moves.before] is not None and row[moves.after] is not None]
    longest = max((max(abs(row[moves.before]), abs(row[moves.after])) for row in rows), default=0)
    rows = [row for row in rows if abs(row[moves.after] - row[moves.before]) > SEEN * longest]
    if (order := moves.order) is not None:
        rows.sort(key=lambda row: row[order] or 0, reverse=True)
    shown = [(_label(row, moves.labels), row[moves.before], row[moves.after]) for row in rows[:MOST]]
    return charts.moves(shown, moves.before, moves.after, len(rows)) if shown else None


def _label(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The values of these columns as one name; of a URI the file's name."""
    if columns == ("value",) and row["value"] is None and (row["values"] or 1) > 1:
        return "all others"
    parts = [UNKNOWN if row[name] is None else text(SHORT.get(row[name], row[name]), name) for name in columns]
    if columns == ("uri",):
        parts = [PurePosixPath(parts[0]).name]
    parts = [part for part in parts if part] or ["(empty)"]
    return "\n".join([" · ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _histogram(figure: Figure, audit: Audit) -> Plot | None:
    bars = [row for row in figure.records() if row["at_least"] is not None and row["below"] is not None]
    if not bars:
        return None
    signal = figure.id.removeprefix("signals.histogram.")
    drawn = audit.figure("signals.thresholds") if signal != figure.id else None
    lines = [
        (row["threshold"], f"{row['operator']} {number(row['threshold'])}", row["gate"])
        for row in (drawn.records() if drawn is not None else ())
        if row["signal"].lower() == signal.lower()
    ]
    counts = [(row["at_least"], row["below"], row["clips"], row.get("kept_clips")) for row in bars]
    return charts.histogram(counts, lines)


def _funnel(figure: Figure) -> Plot | None:
    steps = [(row["step"], row["clips_left"] + row["lost_clips"], row["clips_left"]) for row in figure.records()]
    return charts.bars(steps, "clips that reach the step", "clips left after it", len(steps))


def _thresholds(figure: Figure) -> Plot | None:
    shown = [
        (
            f"{row['gate']}\n{row['signal'] or ''} {row['operator']} {number(row['tried'])}".replace("\n ", "\n"),
            row["newly_kept_clips"], row["newly_dropped_clips"],
        )
        for row in figure.records()
        if row["newly_kept_clips"] or row["newly_dropped_clips"]
    ]  # fmt: skip
    return charts.both_ways(shown[:MOST], "newly kept clips", "newly dropped clips", len(shown)) if shown else None


def _movers(figure: Figure) -> Plot | None:
    """How far each column moved. One that only one side has did not move."""
    rows = [row for row in figure.records() if row["distance"] is not None]
    far = [row for row in rows if max(row["distance"], row["kept_distance"] or 0) > 0]
    shown = [(row["name"], row["distance"], row["kept_distance"]) for row in far]
    if not shown:
        return None
    return charts.bars_and_ticks(shown[:MOST], "distance of all clips", "distance of kept clips", len(shown))


OWN: Mapping[str, Callable[[Figure], Plot | None]] = {
    "funnel.clips": _funnel,
    "counterfactual.thresholds": _thresholds,
    "against.movers": _movers,
}
