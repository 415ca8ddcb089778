"""The page of an audit in a real browser: all of it is drawn, nothing leaves it, and everyone can read it."""

from __future__ import annotations

from pathlib import Path

import axe_playwright_python
import pytest

from curate.audit.figure import read_audit
from curate.audit.page.html import anchor
from curate.audit.page.plots import plot
from tests.browser import DESKTOP, PHONE
from tests.curate.audit.made import HOSTILE, Made, audit, planted

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
SIGHTS = pytest.mark.parametrize(
    ("size", "dark"), [(size, dark) for size in (DESKTOP, PHONE) for dark in (False, True)],
    ids=["desktop-light", "desktop-dark", "phone-light", "phone-dark"],
)  # fmt: skip
DRAWN = """Object.fromEntries([...document.querySelectorAll('.plot')].map((plot) => {
  const box = plot.querySelector('svg').getBoundingClientRect()
  const marks = [...plot.querySelectorAll('.role-mark path, .role-mark line')].filter((mark) => {
    const size = mark.getBoundingClientRect(); return size.width + size.height > 0 })
  return [plot.closest('article').id, [box.width, box.height, marks.length]] }))"""
CUT = """[...document.querySelectorAll('.plot text')].filter((text) => text.textContent.trim() &&
  (text.getBoundingClientRect().left < text.closest('article').getBoundingClientRect().left ||
   text.getBoundingClientRect().right > text.closest('article').getBoundingClientRect().right))
  .map((text) => text.textContent)"""


@pytest.fixture(scope="module", params=["whole", "weighed", "compared"])
def folder(request, made, weighed, tmp_path_factory):
    """The folder of an audit of the planted catalog, of a dataset of it, and of a catalog beside another."""
    if request.param == "compared":
        folder = tmp_path_factory.mktemp("compared")
        audit(made[1], folder / "audit", against=planted(seed=3, sources=20).write(folder / "other"))
        return folder / "audit"
    return made[0] / request.param


@pytest.fixture(scope="module")
def url(folder):
    return (folder / "index.html").as_uri()


def serious(watched):
    """What axe-core finds that keeps people out, as lines."""
    watched.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = watched.page.evaluate("axe.run()")["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in ("serious", "critical")
    ]


@SIGHTS
def test_every_plot_and_picture_is_drawn_and_nothing_leaves_the_page(browser, folder, url, size, dark):
    found = read_audit(folder)
    wanted = {anchor(each.id) for each in found.figures() if each.known and plot(each, found) is not None}
    assert len(wanted) > 25
    compared = {"against.clips", "against.verdicts", "against.movers", "against.values"}
    assert compared & wanted == (compared if found.figure("against.clips").known else set())
    with browser.open(url, size=size, dark=dark) as watched:
        drawn = watched.page.evaluate(DRAWN)
        assert drawn.keys() == wanted
        assert all(width > 100 and height > 20 and marks for width, height, marks in drawn.values()), drawn
        assert watched.page.evaluate(CUT) == []
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= size[0]
        pictures = watched.until(
            "(() => { const all = [...document.images]; return all.every((one) => one.complete) && "
            "all.map((one) => [one.naturalWidth, one.getBoundingClientRect().width]) })()"
        )
        assert len(pictures) > 40 and all(width > 0 and shown > 50 for width, shown in pictures)
        colour = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(","))) < 200) == dark
        assert serious(watched) == []
        watched.nothing_wrong()


def test_with_everything_opened_it_is_still_accessible(browser, url):
    with browser.open(url, size=PHONE) as watched:
        watched.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        assert serious(watched) == []
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_it_is_walked_by_keyboard(browser, folder, url):
    figure = read_audit(folder).figure("totals.clips")
    with browser.open(url) as watched:
        page = watched.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the figures"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.focus("#totals\\.clips summary")
        page.keyboard.press("Enter")
        assert page.inner_text("#totals\\.clips pre").split() == figure.sql.split()
        watched.nothing_wrong()


def test_links_lead_to_places_of_the_page_and_every_place_has_one_name(browser, folder, url):
    with browser.open(url) as watched:
        links = watched.page.evaluate("[...document.querySelectorAll('a')].map((link) => link.getAttribute('href'))")
        ids = watched.page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
        assert len(ids) == len(set(ids))
        assert {link.removeprefix("#") for link in links} <= {*ids, "top"}
        assert {anchor(each.name) for each in read_audit(folder).sections} <= {link[1:] for link in links}


def test_names_from_the_catalog_are_text_and_nothing_runs(browser, url):
    with browser.open(url) as watched:
        tags = watched.page.evaluate("[...new Set([...document.querySelectorAll('*')].map((one) => one.localName))]")
        assert not {"script", "iframe", "object", "embed", "link", "form", "base"} & set(tags)
        names = "[...new Set([...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames()))]"
        assert not [name for name in watched.page.evaluate(names) if name.startswith("on") or "href" in name != "href"]
        assert watched.page.evaluate("[...document.images].every((one) => one.src.startsWith('data:image/jpeg'))")
        assert HOSTILE in watched.page.inner_text("#captions")
        watched.nothing_wrong()


def test_in_print_the_plots_stay_and_what_is_clicked_goes(browser, url):
    with browser.open(url, dark=True) as watched:
        watched.page.emulate_media(media="print")
        assert watched.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not watched.page.is_visible("nav")
        assert not watched.page.is_visible("#totals\\.clips summary")
        assert all(width > 100 for width, _, _ in watched.page.evaluate(DRAWN).values())


@pytest.mark.parametrize("kind", ["empty", "all_dropped"])
def test_a_catalog_of_nothing_has_a_page(browser, tmp_path, kind):
    made = Made() if kind == "empty" else planted(sources=4)
    for clip in made.clips:
        clip["motion"], clip["luma"], clip["sharpness"] = 0.0, None, None
    found = audit(made.write(tmp_path / "catalog"), tmp_path / "audit")
    with browser.open((tmp_path / "audit/index.html").as_uri()) as watched:
        shown = watched.page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.absent li')].map((one) => [one.id, one.textContent]))"
        )
        assert shown.keys() == {anchor(figure.id) for figure in found.figures() if not figure.known}
        assert shown["signals.histogram.luma"].endswith("not in this catalog: a value of luma that is known")
        assert serious(watched) == []
        watched.nothing_wrong()
