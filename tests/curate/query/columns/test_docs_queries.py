"""Queries that README and docs show run on a reader's own catalog too, or name the recipe that makes what they ask."""

import re
from pathlib import Path

import pytest

from curate.cli.main import main
from tests.hostile import moving_square, write_video

ROOT = Path(__file__).resolve().parents[4]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|sql)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OF_DEMO = re.compile(
    r'clipmill sql (?:--catalog demo/catalog "([^"]+)"|"([^"]+)" --catalog demo/catalog)( --against \w+)?', re.MULTILINE
)
MADE_LATER = re.compile(r"run `clipmill run \w+` first|the stage `\w+` makes|`measure: \[\w+\]` makes")


def queries(page):
    """What a page asks of the demo's catalog: the query and other arguments."""
    for language, text in BLOCK.findall(page.read_text()):
        if language == "sql":
            yield from ([query.strip()] for query in text.split(";") if query.strip())
        else:
            yield from ([one or other, *more.split()] for one, other, more in OF_DEMO.findall(text))


ASKED = {f"{page.name}-{number}": query for page in PAGES for number, query in enumerate(queries(page))}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A reader's catalog after `clipmill run ingest --input FOLDER` as it ships."""
    place = tmp_path_factory.mktemp("own")
    (place / "films").mkdir()
    write_video(place / "films" / "a.mp4", moving_square(72, 96, 72))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["run", "ingest", "--input", "films", "--catalog", "catalog", "--engine", "inline"]) == 0
    return place


def test_there_are_queries_to_ask():
    assert len(ASKED) >= 8 and sum("README" in place for place in ASKED) >= 4


@pytest.mark.parametrize("place", ASKED)
def test_a_query_of_the_docs_runs_on_a_reader_s_catalog_or_names_the_recipe_to_run(own, place, monkeypatch, capsys):
    monkeypatch.chdir(own)
    code = main(["sql", *ASKED[place], "--catalog", "catalog"])
    said = capsys.readouterr().err
    assert code == 0 or (code == 2 and MADE_LATER.search(said)), said


@pytest.mark.parametrize("place", [place for place in ASKED if place.startswith("README")][:3])
def test_the_first_three_questions_run_after_ingest_alone(own, place, monkeypatch, capsys):
    monkeypatch.chdir(own)
    assert main(["sql", *ASKED[place], "--catalog", "catalog"]) == 0
    assert "row" in capsys.readouterr().out
