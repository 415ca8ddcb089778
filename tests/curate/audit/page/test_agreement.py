"""The page says what audit.json says: every figure, every row, every number."""

from __future__ import annotations

import json

import pytest

from curate.audit.page.html import anchor
from curate.audit.page.table import MOST

# For each figure the cells of its table: their text, and the exact number where the text is rounded.
TABLES = """Object.fromEntries([...document.querySelectorAll('article')].map((article) =>
  [article.id, {columns: [...article.querySelectorAll('thead th')].map((cell) => cell.textContent),
    title: article.querySelector('h3').textContent,
    sql: [...article.querySelectorAll('details.sql code')].map((code) => code.textContent).at(-1),
    rows: [...article.querySelectorAll('tbody tr')].map((row) => [...row.children].map((cell) =>
      [cell.textContent, cell.querySelector('data')?.getAttribute('value') ?? null]))}]))"""
FACTORS = {"%": 0.01, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def written(text):
    """The number that a cell's text says."""
    number, _, unit = text.replace(",", "").partition(" ")
    return float(number) * FACTORS.get(unit, 1)


def agrees(value, shown, exact, column):
    if value is None:
        return shown in (("unknown", "all others") if column == "value" else ("-",))
    if isinstance(value, bool):
        return shown == ("yes" if value else "no")
    if isinstance(value, int | float):
        said = float(shown.replace(",", "")) if exact is None else float(exact)
        return said == value and written(shown) == pytest.approx(value, rel=6e-4)
    if isinstance(value, list):
        return shown == (", ".join(map(str, value)) or "-")
    return shown.replace("\r\n", "\n") == value.replace("\r\n", "\n")


@pytest.mark.parametrize("name", ["whole", "weighed"])
def test_every_row_of_the_json_is_on_the_page(browser, made, weighed, name):
    folder = made[0] / name
    figures = [f for section in json.loads((folder / "audit.json").read_text())["sections"] for f in section["figures"]]
    with browser.open((folder / "index.html").as_uri()) as watched:
        tables = watched.page.evaluate(TABLES)
        absent = watched.page.evaluate("[...document.querySelectorAll('.absent li')].map((one) => one.id)")
        totals = watched.page.inner_text(".totals")
    known = [figure for figure in figures if figure["sql"]]
    assert tables.keys() == {anchor(figure["id"]) for figure in known}
    assert set(absent) == {anchor(figure["id"]) for figure in figures} - tables.keys()
    compared = 0
    for figure in known:
        found = tables[anchor(figure["id"])]
        assert (found["title"], found["sql"]) == (figure["title"], figure["sql"])
        assert len(found["rows"]) == min(len(figure["rows"]), MOST), figure["id"]
        if figure["rows"]:
            assert [name.replace(" ", "_") for name in found["columns"]] == figure["columns"]
        for row, cells in zip(figure["rows"], found["rows"], strict=False):
            for column, value, (shown, exact) in zip(figure["columns"], row, cells, strict=True):
                assert agrees(value, shown, exact, column), (figure["id"], column, value, shown, exact)
                compared += 1
    assert compared > 1000
    clips = next(figure for figure in figures if figure["id"] == "totals.clips")
    assert f"{clips['rows'][0][0]:,}" in totals
