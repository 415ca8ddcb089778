"""A catalog of drawn films with all that can be made of them: scores, captions, duplicates, embeddings, latents."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from curate.datasets.create import run_dataset_create
from curate.run.command import run_recipes
from tests.curate.running import INLINE, cut_film
from tests.shared_folder import made_once
from tests.vae_models import vae_folder

FILMS = 5
RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0.5}
      - cut: {min_seconds: 1, max_seconds: 20}
      - measure: [motion, phash]
  captions: {select: SELECT * FROM clips, stages: [caption: {manifest: {sidecar: .txt}}]}
  embeddings: {select: SELECT * FROM clips, stages: [embed: {model: %s}]}
  unique: {select: SELECT * FROM clips, stages: [duplicates: {near: {same_source: false}}]}
  latents:
    select: SELECT * FROM clips WHERE verdict = 'kept'
    stages:
      - encode: {vae: %s, buckets: ["9x64x96"], fps: 8, shard_clips: 3}
"""


@dataclass(frozen=True)
class Made:
    """`films` and `recipes` are shared and only read; `catalog` and `datasets` are the test's own."""

    films: Path
    recipes: Path
    catalog: Path
    datasets: Path

    def dataset(self, name: str = "all", select: str = "SELECT clip_id FROM clips") -> Path:
        assert run_dataset_create(name, str(self.catalog), select, output=str(self.datasets)) == 0
        return self.datasets / name

    def film(self, number: int) -> Path:
        return self.films / f"film_{number}.mp4"


def make(folder: Path) -> None:
    films = folder / "films"
    films.mkdir(parents=True)
    for number in range(FILMS):
        cut_film(films / f"film_{number}.mp4", number)
        (films / f"film_{number}.txt").write_text(f"what nobody else says of take {number} zq{number}zq")
    (films / "broken.mp4").write_bytes(b"no video at all" * 40)
    recipes = folder / "pipelines.yaml"
    recipes.write_text(RECIPES % (json.dumps("clipmill:tiny_clip"), json.dumps(str(vae_folder(folder / "vae")))))
    names = ["ingest", "captions", "embeddings", "unique", "latents"]
    inputs = [str(films), str(films / "film_1.mp4")]
    run_recipes(names, str(folder / "catalog"), inputs, recipes, (), INLINE)


@pytest.fixture
def made(tmp_path, tmp_path_factory) -> Made:
    folder, _ = made_once(tmp_path_factory, "purged", make)
    shutil.copytree(folder / "catalog", tmp_path / "catalog")
    return Made(folder / "films", folder / "pipelines.yaml", tmp_path / "catalog", tmp_path / "datasets")
