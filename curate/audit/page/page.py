"""Writes index.html of an audit: every section, figure, plot, table and picture in one file without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from curate.audit.figure import AUDIT, Audit, Figure, Section
from curate.audit.page.cards import Pictures, cards
from curate.audit.page.charts import Plot
from curate.audit.page.drawing import NotDrawn, draw
from curate.audit.page.html import anchor, html, node
from curate.audit.page.plots import plot
from curate.audit.page.table import folded, sql, table
from curate.audit.page.values import number, size, text
from models.files import write_whole

PAGE = "index.html"
# Nothing is fetched and nothing runs, whatever stands in the catalog.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
SHORT = 12  # rows of a table that is shown without being asked for
NARROW = 4  # columns of a table that finds room in a column of the page


def write_page(folder: Path, audit: Audit, jpegs: Mapping[str, bytes]) -> str | None:
    """Writes FOLDER/index.html, whole or not at all, with these thumbnails by clip id.

    Returns a line that says why there are tables only, where plots can't be drawn.
    """
    plots = {figure.id: found for figure in audit.figures() if figure.known and (found := plot(figure, audit))}
    why_not = None
    try:
        drawn = dict(zip(plots, draw([each.spec for each in plots.values()]), strict=True))
    except NotDrawn as error:
        drawn, why_not = {}, str(error)
    pictures = Pictures(jpegs)
    sections = [_section(section, plots, drawn, pictures) for section in audit.sections]
    write_whole(folder / PAGE, "<!doctype html>\n" + html(_page(audit, sections, why_not, pictures)) + "\n")
    return why_not


def _page(audit: Audit, sections: Sequence[Element], why_not: str | None, pictures: Pictures) -> Element:
    title = f"Audit of {audit.about.get('catalog', 'a catalog')}"
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", http_equiv="Content-Security-Policy", content=POLICY),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("title", title),
        node("style", style),
    )
    links = [node("li", node("a", each.title, href=f"#{anchor(each.name)}")) for each in audit.sections]
    links.append(node("li", node("a", "Relations", href="#relations")))
    notes = [why_not] if why_not else []
    if pictures.left_out:
        notes.append(f"{pictures.left_out:,} pictures were left out, so that the page stays small.")
    main = node(
        "main",
        _summary(audit),
        (node("p", each, class_="note") for each in notes),
        sections,
        _relations(audit),
        id="main",
        tabindex="-1",
    )
    body = node(
        "body",
        node("a", "To the figures", href="#main", class_="skip"),
        node("header", node("h1", title), _about(audit)),
        node("nav", node("ul", links), aria_label="Sections"),
        main,
    )
    return node("html", head, body, lang="en")


def _about(audit: Audit) -> Element:
    names = {"selection": "Selected", "made": "Made", "held_out": "Held out", "other": "Second dataset"}
    names["compared_with"] = "Compared with"
    lines = [(title, audit.about.get(name)) for name, title in names.items()]
    lines.append(("Data", f"{AUDIT}, beside this page"))
    return node("dl", ([node("dt", title), node("dd", text(value))] for title, value in lines if value), class_="about")


def _summary(audit: Audit) -> Element:
    """The numbers that a reader looks for first, each a link to its figure."""
    figures = {figure.id: figure for figure in audit.figures()}
    found: list[tuple[str, str, str]] = []
    for id, column, title in (
        ("totals.clips", "clips", "clips"),
        ("totals.clips", "hours", "hours of clips"),
        ("totals.clips", "kept_clips", "clips kept"),
        ("totals.clips", "kept_hours", "hours kept"),
        ("totals.clips", "encoded_clips", "clips encoded"),
        ("totals.selected_sources", "sources", "their sources"),
        ("totals.selected_sources", "bytes", "bytes of these"),
    ):
        value = figures[id].value(column) if id in figures and column in figures[id].columns else None
        if value is not None:
            shown = size(value) if column == "bytes" else number(value, column)
            found.append((id, shown, title))
    cells = (
        node("li", node("a", node("strong", shown), node("span", f" {title}"), href=f"#{anchor(id)}"))
        for id, shown, title in found
    )
    return node("ul", cells, class_="totals", aria_label="In short")


def _section(section: Section, plots: Mapping[str, Plot], drawn: Mapping[str, Element], pictures: Pictures) -> Element:
    known = [figure for figure in section.figures if figure.known]
    absent = [figure for figure in section.figures if not figure.known]
    figures = (_figure(each, plots.get(each.id), drawn.get(each.id), pictures) for each in known)
    name = anchor(section.name)
    return node(
        "section",
        node("h2", section.title, id=f"{name}-title"),
        node("div", figures, class_="figures"),
        node("ul", map(_absent, absent), class_="absent") if absent else None,
        node("p", node("a", "To the top", href="#top"), class_="top"),
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _absent(figure: Figure) -> Element:
    return node("li", node("strong", figure.title), f": {figure.note}", id=anchor(figure.id))


def _figure(figure: Figure, plotted: Plot | None, svg: Element | None, pictures: Pictures) -> Element:
    drawn = list(_drawn(plotted, svg)) if plotted is not None and svg is not None else cards(figure, pictures)
    pictured = svg is None and bool(drawn)
    single = len(figure.rows) == 1 and {"value", "values", "clips"} <= set(figure.columns)
    if single:
        row = figure.records()[0]
        drawn = [node("p", f"{text(row['value'], 'value') or '(empty)'}: all {row['clips']:,} clips")]
    wide = svg is None and bool(figure.rows) and (pictured or (not drawn and len(figure.columns) > NARROW))
    return node(
        "article",
        node("h3", figure.title),
        drawn,
        node("p", figure.note, class_="note") if figure.note and not single else None,
        _table(figure, folded_up=bool(drawn)),
        sql(figure),
        id=anchor(figure.id),
        class_=f"figure{' wide' if wide else ''}",
    )


def _drawn(plotted: Plot, svg: Element) -> Iterator[Element]:
    svg.set("aria-hidden", "true")
    svg.set("focusable", "false")
    yield node("p", (_key(*each) for each in plotted.keys), class_="keys")
    yield node("div", svg, class_="plot", role="img", aria_label=f"{plotted.said} All values are in the table below.")
    for note in plotted.notes:
        yield node("p", note, class_="note")


def _table(figure: Figure, folded_up: bool) -> Element:
    if not figure.rows:
        return node("p", "None: the query gives no row.")
    if not folded_up and len(figure.rows) <= SHORT:
        return table(figure)
    rows = f"{len(figure.rows):,} row{'s' if len(figure.rows) > 1 else ''}"
    return folded(f"Table, {rows}", table(figure), about=figure.title, class_="rows")


def _key(kind: str, said: str) -> Element:
    return node("span", node("span", class_=f"swatch {kind}", aria_hidden="true"), said, class_="key")


def _relations(audit: Audit) -> Element:
    """What the SQL of the figures names beside the views of the catalog."""
    said = "The SQL of the figures queries the views of the catalog and these relations. To run it with clipmill sql, "
    said += "put them before it as common table expressions."
    shown = (
        node("details", node("summary", name), node("pre", node("code", relation)), class_="sql")
        for name, relation in audit.relations.items()
    )
    return node(
        "section",
        node("h2", "Relations", id="relations-title"),
        node("p", said),
        shown,
        node("p", node("a", "To the top", href="#top"), class_="top"),
        id="relations",
        aria_labelledby="relations-title",
    )
