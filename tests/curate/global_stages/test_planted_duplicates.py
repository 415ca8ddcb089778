"""Planted copies of drawn films, through a real ingest: nearly all are found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.demo.files import write_video
from curate.demo.films import Script, Shot, film_frames
from curate.demo.scenes import Scene
from curate.global_stages.duplicates.settings import DuplicateSettings
from curate.global_stages.duplicates.stage import Duplicates
from tests.curate.running import ingest, pipelines
from tests.planted import COPIES, Found, compare, plant, shown_by

PIPELINE = """\
recipes:
  ingest:
    stages:
      - cut: {min_seconds: 1}
      - measure: [phash]
"""


def judged(folder: Path, films: list[Path], changes) -> Found:
    """Ingests the films and their copies, judges all clips, and counts pairs."""
    truth = plant(films, films[0].parent, changes)
    ingest(folder / "catalog", films[0].parent, file=pipelines(folder, PIPELINE))
    with connect(Catalog.open(str(folder / "catalog"))) as sql:
        shown = shown_by(sql, truth)
        table = Duplicates(DuplicateSettings(exact=False)).compute(sql, "SELECT clip_id FROM clips", None)
    clusters = dict(zip(table["clip_id"].to_pylist(), table["duplicate_cluster"].to_pylist(), strict=True))
    assert {shown[clip].film for clip in shown} == {film.name for film in films}
    return compare(clusters, shown)


@pytest.mark.slow
def test_copies_of_drawn_films_are_found(tmp_path):
    """Re-encoded at three qualities, resized, in another codec, brighter, darker, cut shorter."""
    looks = (("circle", "red", "moving left", "green"), ("star", "yellow", "growing", "blue"),
             ("square", "white", "moving up", "purple"), ("triangle", "blue", "spinning", "orange"))  # fmt: skip
    scenes = [Scene(*look, seed=number) for number, look in enumerate(looks)]
    (tmp_path / "films").mkdir()
    films = []
    for number in range(2):
        shots = tuple(Shot(scene, 2.4) for scene in scenes[2 * number : 2 * number + 2])
        script = Script(f"film{number}.mp4", shots, 192, 112, 12)
        films.append(tmp_path / "films" / script.name)
        write_video(films[-1], film_frames(script), script.fps)
    found = judged(tmp_path, films, COPIES)
    assert found.planted > 100
    assert found.recall >= 0.95 and found.precision >= 0.98, found
