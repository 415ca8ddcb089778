"""A purge of what the Ray engine wrote: files of several writers, shards of several workers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from curate.catalog.catalog import Catalog
from curate.run.verify import verify
from tests.curate.removal.searching import all_samples, holding, values_of
from tests.curate.running import ask

pytestmark = pytest.mark.ray
RECIPES = ("ingest", "captions", "embeddings", "unique", "latents")


def clipmill(*arguments):
    done = subprocess.run([sys.executable, "-m", "curate.cli", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr[-2000:]  # 1: the broken film failed
    return done.stdout


def test_nothing_of_a_purged_source_is_left_and_a_run_on_ray_does_not_bring_it_back(made, tmp_path):
    catalog, film = tmp_path / "on_ray", made.film(1)
    run = ("--catalog", catalog, "--input", made.films, "--pipelines", made.recipes, "--engine", "ray")
    clipmill("run", *RECIPES, *run)
    assert ask(catalog, "SELECT DISTINCT engine FROM runs") == [("ray",)]
    values, before = values_of(catalog, f"uri = '{film}'"), all_samples(catalog)
    assert {name for name, _ in holding(values, catalog)} == set(values)
    assert "nothing of it was found" in clipmill("purge", "--catalog", catalog, "--where", f"uri = '{film}'", "--yes")
    assert holding(values, catalog) == set()
    assert verify(Catalog.open(str(catalog))) == []
    left = {clip for (clip,) in ask(catalog, "SELECT clip_id FROM clips")}
    assert all_samples(catalog) == {clip: fields for clip, fields in before.items() if clip in left}
    assert len(before) > len(all_samples(catalog)) > 0
    clipmill("run", *RECIPES, *run)
    assert {clip for (clip,) in ask(catalog, "SELECT clip_id FROM clips")} == left
    assert ask(catalog, f"SELECT count(*) FROM sources WHERE uri = '{film}'") == [(0,)]
    assert verify(Catalog.open(str(catalog))) == []
