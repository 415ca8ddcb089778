"""The page of `clipmill browse` in a real browser: query, filter, open and play a clip, change a gate."""

from __future__ import annotations

import pytest

from tests.browser import DESKTOP, PHONE
from tests.curate.audit.browse.conftest import HOSTILE, SAID
from tests.curate.audit.browse.serving import serving
from tests.curate.running import ask

CARDS = "document.querySelectorAll('#cards .card').length"


def shown(watched, number):
    """Waits until so many clips are shown."""
    watched.until(f"{CARDS} === {number} && !document.getElementById('chosen').textContent.startsWith('…')")


def count(browsed, where):
    return ask(browsed / "catalog", f"SELECT count(*) FROM clips WHERE {where}")[0][0]


def pictures_drawn(watched):
    return watched.until(
        "(() => { const all = [...document.querySelectorAll('#cards img')]; "
        "return all.length > 0 && all.every((image) => image.complete && image.naturalWidth > 0) })()"
    )


@pytest.fixture(scope="module")
def home(served):
    return served.address


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_clips_are_there_at_every_width_and_in_every_light(browser, home, browsed, size, dark):
    with browser.open(home, size=size, dark=dark) as watched:
        shown(watched, count(browsed, "true"))
        pictures_drawn(watched)
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= size[0]
        colour = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(","))) < 200) == dark
        watched.nothing_wrong()


def test_filters_are_added_and_removed_and_the_order_is_that_of_a_column(browser, home, browsed):
    with browser.open(home) as watched:
        page = watched.page
        shown(watched, count(browsed, "true"))
        page.select_option("#filter-column", "verdict")
        watched.until("document.querySelector('#filter-values option[value=dropped]') !== null")
        page.fill("#filter-value", "dropped")
        page.click("#filter button")
        shown(watched, count(browsed, "verdict = 'dropped'"))
        assert page.inner_text("#filters li span").strip() == "verdict = dropped"
        assert "dropped by bright" in page.inner_text("#cards")
        page.select_option("#order", "luma_mean")
        page.check("#descending")
        watched.until("document.getElementById('cards').innerText.includes('luma_mean')")
        values = [float(text.rsplit("luma_mean ", 1)[1]) for text in page.locator("#cards .card").all_inner_texts()]
        assert values == sorted(values, reverse=True) and len(set(values)) > 1
        page.click("#filters button")
        shown(watched, count(browsed, "true"))
        watched.nothing_wrong()


def test_a_clip_is_opened_played_and_explained(browser, home, browsed):
    clips = ask(
        browsed / "catalog", f"SELECT end_s - start_s, frames FROM clips WHERE uri LIKE '%{HOSTILE[-6:]}' LIMIT 1"
    )
    with browser.open(home) as watched:
        page = watched.page
        shown(watched, count(browsed, "true"))
        page.locator(".card", has_text="<img src=x").first.click()
        playing = watched.until(
            "(() => { const film = document.querySelector('#clip video'); "
            "return film && film.currentTime > 0.2 && {length: film.duration, at: film.currentTime} })()"
        )
        assert playing["length"] == pytest.approx(clips[0][0], abs=0.01) and playing["at"] <= playing["length"]
        page.evaluate("document.querySelector('#clip video').pause()")
        page.evaluate("document.querySelector('#clip video').currentTime = 1")
        watched.until("(() => { const film = document.querySelector('#clip video'); "
                      "return !film.seeking && film.currentTime === 1 && film.readyState >= 2 })()")  # fmt: skip
        body = page.inner_text("#clip-body")
        assert SAID in body and f"the long story of {HOSTILE}" in body  # as text: nothing of it became HTML
        assert page.evaluate("document.querySelectorAll('script').length") == 1
        assert "luma_mean >= 116" in body and "1 duplicates, exact" in body
        title = page.inner_text("#clip-title")
        page.keyboard.press("ArrowRight")
        watched.until(f"document.getElementById('clip-title').innerText !== {title!r}" if '"' not in title else "true")
        page.keyboard.press("Escape")
        watched.until("!document.getElementById('clip').open")
        assert page.evaluate("document.activeElement.className") == "card"
        watched.nothing_wrong()


def test_a_query_shows_its_rows_its_mistakes_and_its_clips(browser, home, browsed):
    with browser.open(home) as watched:
        page = watched.page
        shown(watched, count(browsed, "true"))
        page.click("#show-sql")
        assert "luma_mean" in page.inner_text("#schema") and "thumbnails" in page.inner_text("#schema")
        page.fill("#query-text", "SELECT moton FROM clips")
        page.keyboard.press("Control+Enter")
        watched.until("document.getElementById('problem').textContent.includes('motion')")
        watched.errors.clear()  # the browser itself notes every answer that is no success
        page.fill("#query-text", "SELECT clip_id, uri FROM clips WHERE uri LIKE '%DROP%'")
        page.click("#query button")
        wanted = count(browsed, "uri LIKE '%DROP%'")
        watched.until(f"document.querySelectorAll('#rows tbody tr').length === {wanted}")
        assert (
            HOSTILE in page.inner_text("#rows") and page.evaluate("document.querySelectorAll('#rows img').length") == 0
        )
        page.click("#query-clips")
        shown(watched, wanted)
        page.click("#show-export")
        watched.until("document.getElementById('export-body').innerText.includes('dataset create')")
        page.keyboard.press("Escape")
        watched.nothing_wrong()


def test_a_changed_gate_shows_what_it_would_keep_before_it_is_in_force(browser, home, browsed):
    with browser.open(home) as watched:
        page = watched.page
        shown(watched, count(browsed, "true"))
        page.click("#gate-part summary")
        page.select_option("#gate-instead", "ingest.bright")
        assert page.input_value("#gate-where") == "luma_mean >= 116"
        page.fill("#gate-where", "luma_mean >= 114")
        page.click("#gate button")
        watched.until("document.querySelector('#gate-said table') !== null")
        back = count(browsed, "luma_mean >= 114 AND failed_gates = ['bright']")
        assert back > 0
        assert [
            line.split()[-2] for line in page.inner_text("#gate-said").splitlines() if line.startswith("newly kept")
        ] == [str(back)]
        page.click("#gate-said button:has-text('newly kept')")
        shown(watched, back)
        page.click("#no-gate")
        shown(watched, count(browsed, "true"))
        watched.nothing_wrong()
    assert count(browsed, "verdict = 'kept'") < count(browsed, "luma_mean >= 114")


def test_the_page_is_walked_by_keyboard(browser, home, browsed):
    with browser.open(home) as watched:
        page = watched.page
        shown(watched, count(browsed, "true"))
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the clips"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "card"
        page.keyboard.press("Enter")
        watched.until("document.getElementById('clip').open")
        page.keyboard.press("Escape")
        watched.nothing_wrong()


@pytest.mark.slow
def test_words_find_the_clips_that_clipmill_search_finds(browser, demo_run):
    from curate.catalog.catalog import Catalog
    from curate.query.search import TextSearch

    with TextSearch(Catalog.open(str(demo_run[0] / "catalog"))) as searcher:
        wanted = [hit.uri.rsplit("/", 1)[1] for hit in searcher.find("a red circle", 20)]
    with serving(demo_run[0] / "catalog") as served, browser.open(served.address) as watched:
        watched.until(f"{CARDS} > 0")
        watched.page.keyboard.press("/")
        watched.page.keyboard.type("a red circle")
        watched.page.keyboard.press("Enter")
        watched.until("document.getElementById('search-said').textContent.includes('nearest')", 120)
        watched.until(f"{CARDS} > 0 && !document.getElementById('chosen').textContent.startsWith('…')")
        names = [text.splitlines()[1] for text in watched.page.locator("#cards .card").all_inner_texts()]
        assert names[:20] == wanted
        watched.nothing_wrong()
