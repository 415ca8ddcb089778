"""Vega-Lite specifications of the kinds of plots: bars, values that move, and histograms with thresholds.

All are WIDTH pixels wide, so that a phone shows them in their own size and a wide window several beside one another.
Their colours are CSS variables of the page: one drawing serves light, dark and print.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from curate.audit.page.html import readable
from curate.audit.page.values import heading, number

WIDTH = 350  # of a whole plot, pixels
STEP, TWO_LINES, TALL = 20, 32, 130  # heights of a bar's row, of one with two lines, and of a histogram, pixels
LABELS, CHARACTERS = 150, 21  # width of the names of bars, pixels, and letters in a line of them, in any font
LETTER, ROW = 7, 186  # width of a letter at most, and of the space for a bar and the numbers at its end, pixels
ALL, PART, LOST, LINE, INK, PALE = (f"var(--{name})" for name in ("all", "part", "lost", "mark", "ink", "pale"))
CONFIG = {
    "aria": False,  # what screen readers say stands in the page: a description and a table
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK, "titleColor": INK, "domainColor": "var(--line)", "tickColor": "var(--line)",
        "gridColor": "var(--line)", "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A plot that is not drawn yet."""

    spec: dict[str, Any]  # Vega-Lite
    said: str  # what it shows, in words
    keys: Sequence[tuple[str, str]] = ()  # class of a colour in the style sheet, what it stands for
    notes: Sequence[str] = field(default=())  # lines below it


def bars(rows: Sequence[tuple[str, float, float | None]], whole: str, part: str | None, of: int) -> Plot:
    """Horizontal bars (label, whole, part), the part drawn over the whole."""
    names = _names([row[0] for row in rows])
    values: list[dict[str, Any]] = [
        {"name": name, "whole": all_, "part": some or 0, "at": max(all_, 0), "said": _said(all_, some, whole)}
        for name, (_, all_, some) in zip(names, rows, strict=True)
    ]
    end = _end([(each["at"], each["said"]) for each in values])
    x = {"type": "quantitative", "axis": None, "scale": {"domainMax": end, "nice": False}}
    layers = [{"mark": {"type": "bar", "color": ALL if part else PART}, "encoding": {"x": {"field": "whole", **x}}}]
    if part:
        layers.append({"mark": {"type": "bar", "color": PART, "height": STEP * 0.55}, "encoding": {
            "x": {"field": "part", **x}}})  # fmt: skip
    layers.append(_text("said", {"x": {"field": "at", **x}}))
    keys = (("all", heading(whole)), ("part", heading(part))) if part else (("part", heading(whole)),)
    first = max(rows, key=lambda row: row[1])
    said = f"Bars of {heading(whole)}{f' and {heading(part)}' if part else ''}: {len(rows)} of {of:,}. "
    said += f"The longest: {first[0]}, {number(first[1], whole)}."
    return Plot(_rows_spec(values, names, layers), said, keys, _more(len(rows), of))


def moves(rows: Sequence[tuple[str, float, float]], before: str, after: str, of: int) -> Plot:
    """A line from one value to another for each (label, before, after)."""
    names = _names([row[0] for row in rows])
    values: list[dict[str, Any]] = [
        {"name": name, "before": a, "after": b, "said": f"{number(a, before)} → {number(b, after)}",
         "at": max(a, b)} for name, (_, a, b) in zip(names, rows, strict=True)
    ]  # fmt: skip
    scale = {"domainMax": _end([(each["at"], each["said"]) for each in values]), "zero": True, "nice": False}
    x = {"type": "quantitative", "axis": None, "scale": scale}
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "rule", "color": PALE, "strokeWidth": 2},
         "encoding": {"x": {"field": "before", **x}, "x2": {"field": "after"}}},
        {"mark": {"type": "tick", "color": ALL, "thickness": 3, "height": 12},
         "encoding": {"x": {"field": "before", **x}}},
        {"mark": {"type": "point", "filled": True, "size": 55, "opacity": 1, "color": LOST},
         "encoding": {"x": {"field": "after", **x}}},
        _text("said", {"x": {"field": "at", **x}}, away=8),
    ]  # fmt: skip
    said = f"From {heading(before)} to {heading(after)}: {len(rows)} of {of:,} rows."
    keys = (("all", heading(before)), ("lost", heading(after)))
    return Plot(_rows_spec(values, names, layers), said, keys, _more(len(rows), of, " that differ"))


def bars_and_ticks(rows: Sequence[tuple[str, float, float | None]], bar: str, tick: str, of: int) -> Plot:
    """Horizontal bars (label, bar, tick) of a number, and a tick where another one lies, which may be unknown."""
    names = _names([row[0] for row in rows])
    values: list[dict[str, Any]] = [
        {"name": name, "bar": a, "tick": b, "at": max(a, b or 0),
         "said": f"{a:.2f} / {'-' if b is None else f'{b:.2f}'}"} for name, (_, a, b) in zip(names, rows, strict=True)
    ]  # fmt: skip
    scale = {"domainMax": _end([(each["at"], each["said"]) for each in values]), "zero": True, "nice": False}
    x = {"type": "quantitative", "axis": None, "scale": scale}
    known = [{"filter": "isValid(datum.tick)"}]
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "bar", "color": ALL}, "encoding": {"x": {"field": "bar", **x}}},
        {"transform": known, "mark": {"type": "tick", "color": LOST, "thickness": 3, "height": STEP * 0.8},
         "encoding": {"x": {"field": "tick", **x}}},
        _text("said", {"x": {"field": "at", **x}}),
    ]  # fmt: skip
    first = rows[0]
    said = f"Bars of {bar} with a tick at {tick}: {len(rows)} of {of:,} rows. "
    said += f"The first: {first[0]}, {number(first[1])}{'' if first[2] is None else f' and {number(first[2])}'}."
    return Plot(_rows_spec(values, names, layers), said, (("all", bar), ("lost", tick)), _more(len(rows), of))


def both_ways(rows: Sequence[tuple[str, int, int]], gained: str, lost: str, of: int) -> Plot:
    """Bars to the right for what is gained, to the left for what is lost: (label, gained, lost)."""
    names = _names([row[0] for row in rows])
    values: list[dict[str, Any]] = [
        {"name": name, "gained": a, "lost": -b, "up": f"+{a:,}" if a else "", "down": f"-{b:,}" if b else ""}
        for name, (_, a, b) in zip(names, rows, strict=True)
    ]
    ends = [(a, each["up"]) for each, (_, a, _) in zip(values, rows, strict=True)]
    ends += [(b, each["down"]) for each, (_, _, b) in zip(values, rows, strict=True)]
    furthest = _end(ends, ROW / 2)
    x = {"type": "quantitative", "axis": None, "scale": {"domain": [-furthest, furthest], "nice": False}}
    layers = [
        {"mark": {"type": "bar", "color": PART}, "encoding": {"x": {"field": "gained", **x}}},
        {"mark": {"type": "bar", "color": LOST}, "encoding": {"x": {"field": "lost", **x}}},
        _text("up", {"x": {"field": "gained", **x}}),
        _text("down", {"x": {"field": "lost", **x}}, left=True),
    ]
    said = f"Bars of {gained} to the right and {lost} to the left: {len(rows)} of {of:,} moved thresholds."
    return Plot(_rows_spec(values, names, layers), said, (("part", gained), ("lost", lost)), _more(len(rows), of))


def histogram(counts: Sequence[tuple[float, float, int, int | None]], lines: Sequence[tuple[float, str, str]]) -> Plot:
    """Bars (at least, below, clips, kept clips) over their values, and lines (value, text, gate) of thresholds."""
    low, high = counts[0][0], counts[-1][1]
    if low == high:  # one value alone: its bar has no width of its own
        low, high = low - max(abs(low) / 2, 0.5), high + max(abs(high) / 2, 0.5)
        counts = [(low / 2 + counts[0][0] / 2, high / 2 + counts[0][1] / 2, *counts[0][2:])]
    parted = any(each[3] is not None for each in counts)
    values = [{"low": a, "high": b, "clips": n, "kept": kept or 0} for a, b, n, kept in counts]
    x = {"type": "quantitative", "title": None, "scale": {"domain": [low, high], "nice": False, "zero": False},
         "axis": {"grid": False, "tickCount": 4, "labelFlush": True, "labelOverlap": True}}  # fmt: skip
    y = {"type": "quantitative", "title": None, "axis": {"tickCount": 3, "format": "~s", "domain": False}}
    span = {"x": {"field": "low", **x}, "x2": {"field": "high"}, "y2": {"datum": 0}}
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "rect", "color": ALL if parted else PART}, "encoding": {**span, "y": {"field": "clips", **y}}}
    ]
    if parted:
        layers.append({"mark": {"type": "rect", "color": PART}, "encoding": {**span, "y": {"field": "kept", **y}}})
    inside = [(value, said) for value, said, _ in lines if low <= value <= high]
    if inside:
        drawn = {
            "values": [{"at": value, "said": readable(said), "end": value > (low + high) / 2} for value, said in inside]
        }
        layers.append({"data": drawn, "mark": {"type": "rule", "color": LINE, "strokeWidth": 2, "strokeDash": [5, 3]},
                       "encoding": {"x": {"field": "at", **x}}})  # fmt: skip
        for end in (False, True):
            mark = {"type": "text", "align": "right" if end else "left", "dx": -4 if end else 4, "dy": -6,
                    "baseline": "bottom", "color": LINE, "fontSize": 11}  # fmt: skip
            place = {"x": {"field": "at", **x}, "y": {"value": 0}, "text": {"field": "said"}}
            chosen = [{"filter": {"field": "end", "equal": end}}]
            layers.append({"data": drawn, "transform": chosen, "mark": mark, "encoding": place})
    tallest = max(counts, key=lambda each: each[2])
    said = f"Histogram of {len(counts)} bars from {number(low)} to {number(high)}. "
    said += f"The tallest: {tallest[2]:,} clips from {number(tallest[0])} to {number(tallest[1])}."
    notes = [
        f"{gate}: {text}{'' if low <= value <= high else ', outside of these values'}" for value, text, gate in lines
    ]
    keys = [("all", "all clips"), ("part", "kept")] if parted else [("part", "clips")]
    spec = {"width": WIDTH, "height": TALL, "autosize": {"type": "fit-x", "contains": "padding"}, "padding": 4,
            "config": CONFIG, "data": {"values": values}, "layer": layers}  # fmt: skip
    return Plot(spec, said, [*keys, *([("mark", "threshold of a gate")] if inside else [])], notes)


def _rows_spec(values: list[dict[str, Any]], names: list[str], layers: list[dict[str, Any]]) -> dict[str, Any]:
    axis = {"labelLimit": 0, "ticks": False, "domain": False, "labelPadding": 6, "minExtent": LABELS,
            "maxExtent": LABELS, "labelExpr": "split(datum.label, '\\n')"}  # fmt: skip
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": axis}
    step = TWO_LINES if any("\n" in name for name in names) else STEP
    return {
        "width": WIDTH, "height": {"step": step}, "autosize": {"type": "fit-x", "contains": "padding"}, "padding": 4,
        "config": CONFIG, "data": {"values": values}, "encoding": {"y": y}, "layer": layers,
    }  # fmt: skip


def _text(field_: str, encoding: dict[str, Any], left: bool = False, away: int = 4) -> dict[str, Any]:
    mark: dict[str, Any] = {"type": "text", "align": "right" if left else "left", "dx": -away if left else away}
    mark |= {"color": INK, "fontSize": 11}
    return {"mark": mark, "encoding": {**encoding, "text": {"field": field_}}}


def _end(ends: Sequence[tuple[float, str]], space: float = ROW) -> float:
    """Where a scale has to end so that each (value, text) finds room: the text begins where the bar ends."""
    return max((value / max(0.1, 1 - (LETTER * len(text) + 8) / space) for value, text in ends), default=0) or 1


def _names(labels: Sequence[str]) -> list[str]:
    """Labels of at most two lines, each its own: rows of one name would be drawn over each other."""
    found: list[str] = []
    for label in labels:
        parts = readable(label).split("\n")
        lines = [line for part in parts for line in textwrap.wrap(part, CHARACTERS, break_long_words=False)] or [""]
        if len(lines) > 2:
            lines = [" ".join(parts[0].split()), " ".join(parts[-1].split())] if len(parts) > 1 else lines[:1]
        name = short = "\n".join(map(_cut, lines))
        again = 1
        while name in found:
            again += 1
            name = f"{short} ({again})"
        found.append(name)
    return found


def _cut(line: str) -> str:
    return line if len(line) <= CHARACTERS else f"{line[: CHARACTERS - 9]}…{line[-8:]}"


def _said(whole: float, part: float | None, column: str) -> str:
    return (
        number(whole, column) if part is None or part == whole else f"{number(part, column)} of {number(whole, column)}"
    )


def _more(shown: int, of: int, which: str = "") -> list[str]:
    return [f"The first {shown} of {of:,}{which}; the table has all."] if shown < of else []
