"""A catalog of films with hostile names and captions, duplicates and drops, and the server that shows it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from curate.run.command import run_recipes
from tests.curate.audit.browse.serving import Served, serving
from tests.curate.running import INLINE, cut_film, pipelines
from tests.shared_folder import made_once

HOSTILE = "<img src=x onerror=alert(1)>'; DROP TABLE clips; --.mp4"
SAID = "<script>alert('caption')</script> a square, & a \"ground\""
RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0.5}
      - cut: {min_seconds: 1, max_seconds: 20}
      - measure: [motion, exposure, phash]
      - gate:
          bright: "luma_mean >= 116"
          moving: "motion > 0"
  said:
    select: SELECT * FROM clips
    stages:
      - caption: {source: manifest, manifest: {column: {short: alt, long: story}}}
      - duplicates: {near: false}
"""


def make(folder: Path) -> None:
    films = folder / "films"
    films.mkdir(parents=True)
    for number in range(3):
        cut_film(films / f"film_{number}.mp4", number)
    shutil.copy(films / "film_0.mp4", films / HOSTILE)
    rows = [{"uri": str(path), "alt": SAID, "story": f"the long story of {path.name}"} for path in films.iterdir()]
    (folder / "films.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file = pipelines(folder, RECIPES)
    catalog = str(folder / "catalog")
    assert run_recipes(["ingest"], catalog, [str(folder / "films.jsonl")], file, (), INLINE) == 0
    assert run_recipes(["said"], catalog, None, file, (), INLINE) == 0


@pytest.fixture(scope="session")
def browsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds catalog/ and films/; tests leave it as it is."""
    return made_once(tmp_path_factory, "browsed", make)[0]


@pytest.fixture(scope="session")
def served(browsed: Path) -> Iterator[Served]:
    with serving(browsed / "catalog") as found:
        yield found
