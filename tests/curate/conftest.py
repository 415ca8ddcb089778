"""What several files of tests share, made once for all workers: the demo's films, and a demo that has run over them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from curate.demo.demo import demo
from curate.demo.films import draw_films, write_truth
from tests.shared_folder import made_once


@pytest.fixture(scope="session")
def drawn_films(tmp_path_factory: pytest.TempPathFactory):
    """(folder of the demo's films, the truth about them)."""
    return made_once(tmp_path_factory, "drawn_films", draw_films)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory, drawn_films) -> tuple[Path, int]:
    """(folder, exit code) of a demo that has run once, with its catalog and search.png."""
    films, truth = drawn_films

    def make(folder: Path) -> int:
        shutil.copytree(films, folder / "films")
        write_truth(folder / "films.jsonl", truth)
        return demo(folder, engine="inline", learning=False)

    return made_once(tmp_path_factory, "demo", make)
