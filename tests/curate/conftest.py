"""What several files of tests share, made once: the demo's films, and a demo that has run over them."""

import shutil

import pytest

from curate.demo.demo import demo
from curate.demo.films import draw_films, write_truth


@pytest.fixture(scope="session")
def drawn_films(tmp_path_factory):
    """(folder of the demo's films, the truth about them)."""
    folder = tmp_path_factory.mktemp("drawn") / "films"
    return folder, draw_films(folder)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory, drawn_films):
    """(folder, exit code) of a demo that has run once, with its catalog and search.png."""
    folder = tmp_path_factory.mktemp("demo")
    films, truth = drawn_films
    shutil.copytree(films, folder / "films")
    write_truth(folder / "films.jsonl", truth)
    return folder, demo(folder, engine="inline", learning=False)
