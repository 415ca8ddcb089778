"""How a page writes the values of an audit: rounded for reading, with the exact number beside it."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from curate.audit.figure import Cell
from curate.audit.page.html import node

SHARES = ("share", "rate", "top_1", "top_10", "top_100", "top_percent", "gini")  # ends of names of columns
UNITS = ("B", "KB", "MB", "GB", "TB", "PB", "EB")
UNKNOWN = "unknown"
NOTHING = "-"


def number(value: float, column: str = "") -> str:
    """A number as text: whole numbers in full, others with four digits; shares in percent, bytes in their unit."""
    if column == "bytes" or column.endswith("_bytes"):
        return size(value)
    if is_share(column) and -10 < value < 10:
        return f"{100 * value:.4g} %"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def size(value: float) -> str:
    unit = 0
    while abs(value) >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.4g} {UNITS[unit]}"


def is_share(column: str) -> bool:
    return any(column == end or column.endswith(f"_{end}") for end in SHARES)


def is_number(value: Cell) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text(value: Cell, column: str = "") -> str:
    """Any value as text."""
    if value is None:
        return UNKNOWN if column == "value" else NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value, column)
    if isinstance(value, list):
        return ", ".join(text(each) for each in value) or NOTHING
    return value


def cell(value: Cell, column: str, tag: str = "td") -> Element:
    """A cell of a table. A number that is not written in full stands in <data value="...">."""
    shown = text(value, column)
    scope = "row" if tag == "th" else None
    if value is None or value == []:
        return node(tag, shown, class_="nothing", scope=scope)
    if not is_number(value):
        return node(tag, shown, scope=scope)
    exact = repr(value)
    inside = shown if exact == shown.replace(",", "") else node("data", shown, value=exact)
    return node(tag, inside, class_="number", scope=scope)


def heading(column: str) -> str:
    """The name of a column as words."""
    return column.replace("_", " ")
