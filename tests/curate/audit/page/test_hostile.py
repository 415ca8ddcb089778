"""Names can be anything: they are drawn and written as text, and what can't be drawn costs the plots alone."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.audit.figure import Audit, Figure, Section
from curate.audit.page import charts
from curate.audit.page.cards import Pictures
from curate.audit.page.drawing import NotDrawn, draw, plain
from curate.audit.page.html import html, node, readable
from curate.audit.page.page import write_page
from tests.curate.audit.made import HOSTILE, audit, jpeg, planted

NAMES = [
    HOSTILE, "", " ", "'", '"', "</text></svg><script>alert(1)</script>", "]]>", "&amp;&lt;", "\\", "a" * 300,
    "a b " * 90, "日本 \u202e", "%s {0} ${x}", "=datum.x", "\ud800", "\ufffe\uffff", "\U0001f600", "a\nb\tc\r", HOSTILE,
    "null", "1e999", *map(chr, range(33)), "\x7f\x85\u2028",
]  # fmt: skip
TAGS = {"svg", "g", "path", "text", "line", "rect", "tspan"}


class Read(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@given(st.text(), st.text())
def test_any_text_is_text_and_any_value_of_an_attribute_is_one_value(text, value):
    found = Read(html(node("p", text, node("b", text), text, title=value)))
    assert found.tags == ["p", "b"]
    assert found.attributes == [("title", readable(value))]
    assert found.text == 3 * readable(text)


def test_plots_of_any_names_are_drawn_as_shapes_and_text():
    names = [name for name in NAMES]
    plots = [
        charts.bars([(name, 3, 1) for name in names], "clips", "kept_clips", 99),
        charts.moves([(f"{name}\n{name}", 0.1, 0.4) for name in names], "base_rate", "rate", 99),
        charts.both_ways([(name, 2, 5) for name in names], "newly kept", "newly dropped", 99),
        charts.histogram([(0.0, 1.0, 3, 2), (1.0, 2.0, 0, 0)], [(1.0, name, name) for name in names[:20]]),
        charts.histogram([(-1e300, 1e300, 3, 2)], []),
        charts.histogram([(5.0, 5.0, 3, None)], []),
        charts.bars([("all", 0, 0), ("huge", 1e300, 1e300)], "clips", "kept_clips", 2),
    ]
    for drawn in draw([each.spec for each in plots]):
        elements = list(drawn.iter())
        assert {element.tag for element in elements} <= TAGS
        assert not [name for element in elements for name in element.attrib if name.startswith("on") or "href" in name]
        assert "NaN" not in html(drawn)
    bars = draw([plots[0].spec])[0]
    assert sum(element.get("fill") == "var(--part)" for element in bars.iter()) == len(names)  # each has its own row


def test_what_is_no_shape_or_text_is_left_out_of_a_drawing():
    found = html(plain('<svg xmlns="http://www.w3.org/2000/svg" onload="x()"><script>x()</script><image href="http://a/"/>'
                       '<text fill="red" onclick="x()">a</text></svg>'))  # fmt: skip
    assert found == '<svg><text fill="red">a</text></svg>'


def test_a_drawing_that_dies_is_a_page_without_plots():
    spec = charts.bars([("a", 1, None)], "clips", None, 1).spec
    spec["data"]["values"][0]["name"] = "\0"  # vl-convert aborts its process at it
    with pytest.raises(NotDrawn, match="could not be drawn"):
        draw([spec])


def test_without_the_package_the_page_has_tables_and_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vl_convert", None)  # as where it is not installed
    found = audit(planted(sources=3).write(tmp_path / "catalog"), tmp_path / "audit")
    assert "pip install 'clipmill[audit]'" in capsys.readouterr().err
    page = (tmp_path / "audit/index.html").read_text()
    assert "pip install 'clipmill[audit]'" in page and "<svg" not in page
    assert page.count("<table>") == sum(bool(figure.rows) for figure in found.figures())


def test_pages_of_any_names_hold_no_element_but_their_own(tmp_path: Path):
    rows = tuple((name, name, 1.5, None, [name]) for name in NAMES)
    columns = (HOSTILE, "clip_id", "value", "uri", "x")
    figures = (Figure(f"a.{HOSTILE}", HOSTILE, f"SELECT '{HOSTILE}'", columns, rows, HOSTILE),)
    found = Audit({"catalog": HOSTILE, "selection": HOSTILE}, {HOSTILE: HOSTILE}, (Section(HOSTILE, HOSTILE, figures),))
    assert write_page(tmp_path, found, {}) is None
    page = Read((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags and "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") >= 10


def test_pictures_are_bounded_in_number_and_bytes():
    jpegs = {str(number): jpeg(number) for number in range(5)}
    few = Pictures(jpegs, most=2)
    assert [few.image(str(number), "").tag for number in range(4)] == ["img", "img", "p", "p"]
    assert few.left_out == 2
    small = Pictures(jpegs, most_bytes=len(jpeg(0)) + len(jpeg(1)))
    assert [small.image(str(number), "").tag for number in range(3)] == ["img", "img", "p"]
    assert small.image("none", "").text == "no thumbnail"
