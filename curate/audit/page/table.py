"""A figure's rows as a table, and the SQL that gives them."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from curate.audit.figure import Cell, Figure
from curate.audit.page.html import node
from curate.audit.page.values import cell, heading, is_number

MOST = 200  # rows of a figure that the page shows; audit.json has all of them


def table(figure: Figure) -> Element:
    """The table, inside a box that scrolls sideways, by keyboard too."""
    names = node("tr", (_heading(figure, name) for name in figure.columns))
    rows = [_row(figure, row) for row in figure.rows[:MOST]]
    caption = node("caption", figure.title, class_="hidden")
    box = node(
        "div",
        node("table", caption, node("thead", names), node("tbody", rows)),
        class_="scroll",
        tabindex="0",
        role="group",
        aria_label=f"Table: {figure.title}",
    )
    if (more := len(figure.rows) - MOST) > 0:
        return node("div", box, node("p", f"{more:,} more rows are in audit.json.", class_="note"))
    return box


def _heading(figure: Figure, column: str) -> Element:
    known = [value for value in figure.column(column) if value is not None]
    numbers = bool(known) and all(is_number(value) for value in known)
    return node("th", heading(column), scope="col", class_="number" if numbers else None)


def _row(figure: Figure, row: tuple[Cell, ...]) -> Element:
    shown = list(zip(figure.columns, row, strict=True))
    if shown[0] == ("value", None) and _stands_for(figure, row) > 1:  # the rest
        shown[0] = ("value", "all others")
    return node("tr", (cell(v, name, "th" if at == 0 else "td") for at, (name, v) in enumerate(shown)))


def _stands_for(figure: Figure, row: tuple[Cell, ...]) -> int:
    """How many values of a column the row stands for."""
    found = row[figure.columns.index("values")] if "values" in figure.columns else 1
    return found if isinstance(found, int) else 1


def folded(summary: str, *inside: Element, about: str, class_: str) -> Element:
    """What a reader opens on demand; `about` names for screen readers what it belongs to."""
    hidden = node("span", f" of {about}", class_="hidden")
    return node("details", node("summary", summary, hidden), *inside, class_=class_)


def sql(figure: Figure) -> Element:
    return folded("SQL", node("pre", node("code", figure.sql)), about=figure.title, class_="sql")
