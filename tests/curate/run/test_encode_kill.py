"""kill -9 of a run that encodes, at random moments: resumed, each clip is in exactly one shard and none is torn.

CI kills a few times; `CLIPMILL_KILLS=200 pytest tests/curate/run/test_encode_kill.py` goes on for longer.
"""

import json
import os
import random
import shutil
import signal
import subprocess

import pytest
import yaml

from curate.catalog.catalog import Catalog
from curate.run.command import RunOptions, run_recipes
from curate.run.verify import verify
from stages.shards.format import read_index, read_sample
from tests.clip_model import clip_folder
from tests.curate.killing import kill, run_and_kill, tree
from tests.curate.running import INLINE, ask, make_folder, often
from tests.vae_models import vae_folder
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("CLIPMILL_KILLS", "3"))
FILMS = 10
RECIPES = """\
recipes:
  ingest:
    stages: [probe: {min_seconds: 0.5}, cut: {min_seconds: 1, max_seconds: 20}, measure: [motion]]
  latents:
    select: SELECT * FROM clips WHERE verdict = 'kept'
    stages:
      - encode: %s
"""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """(recipes, films)."""
    folder = tmp_path_factory.mktemp("encode_kill")
    films = make_folder(folder / "films", films=FILMS)
    encode = {"vae": str(vae_folder(folder / "vae")), "buckets": ["9x64x96"], "fps": 8, "shard_clips": 2}
    (folder / "pipelines.yaml").write_text(RECIPES % json.dumps(encode))
    return folder / "pipelines.yaml", films


def start(file, catalog, engine="inline"):
    command = often(2, "run", "latents", "--catalog", catalog)
    command += ["--pipelines", str(file), "--engine", engine]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(file, catalog, engine="inline"):
    process = start(file, catalog, engine)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    assert "Traceback" not in error


def check(catalog):
    """Each kept clip in one shard; what lies there is whole, and nothing else lies there."""
    kept = ask(catalog, "SELECT count(*) FROM clips WHERE verdict = 'kept'")[0][0]
    rows = ask(catalog, "SELECT clip_id, shard FROM latents WHERE status = 'done'")
    assert len(rows) == len({clip for clip, _ in rows}) == kept == 2 * FILMS
    where = Catalog.open(str(catalog))
    there = {path for path in where.fs.find(f"{where.path}/shards") if path.endswith(".tar")}
    assert there == {f"{where.path}/{shard}" for _, shard in rows}
    held = [clip for _, shard in {(0, shard) for _, shard in rows} for clip in clips_of(where, shard)]
    assert sorted(held) == sorted(clip for clip, _ in rows)
    assert verify(where) == []


def clips_of(where, shard):
    path = f"{where.uri}/{shard}"
    return set(read_index(path)["clip_id"].to_pylist())


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_killed_at_random_moments_each_clip_is_in_exactly_one_shard(recipes, tmp_path, engine):
    file, films = recipes
    run_recipes(["ingest"], str(tmp_path / "catalog"), [str(films)], file, (), INLINE)
    dice = random.Random(KILLS)
    codes = []
    for number in range(KILLS if engine == "inline" else max(2, KILLS // 3)):
        whom = ("driver", "all")[number % 2]
        moment = (0, 0.8) if engine == "inline" else (0, 1.5)
        codes.append(run_and_kill(lambda: start(file, tmp_path / "catalog", engine), whom, moment, dice, working=True))
    assert -signal.SIGKILL in codes
    finish(file, tmp_path / "catalog", engine)
    check(tmp_path / "catalog")


def test_killed_while_texts_alone_are_made_again_no_latent_is_lost_or_decoded(recipes, tmp_path):
    """Every caption has changed, and the sources are gone: what is lost could not be made again."""
    films = tmp_path / "films"
    shutil.copytree(recipes[1], films)
    (films / "broken.mp4").unlink()
    catalog, file = tmp_path / "catalog", tmp_path / "pipelines.yaml"
    text = {"text": {"model": str(clip_folder()), "captions": ["caption"]}}
    latents = yaml.safe_load(recipes[0].read_text())["recipes"]["latents"]
    latents["stages"][0]["encode"] |= text
    captions = {"select": latents["select"], "stages": [{"caption": {"manifest": {"sidecar": ".txt"}}}]}
    ingest = yaml.safe_load(recipes[0].read_text())["recipes"]["ingest"]
    file.write_text(yaml.safe_dump({"recipes": {"ingest": ingest, "captions": captions, "latents": latents}}))
    _caption(films, "before")
    run_recipes(["ingest", "captions", "latents"], str(catalog), [str(films)], file, (), INLINE)
    means = _means(catalog)
    _caption(films, "after")
    again = RunOptions(engine="inline", quiet=True, rebuild=True)
    run_recipes(["captions"], str(catalog), None, file, (), again)
    for film in films.glob("*.mp4"):
        film.unlink()
    codes = [_kill_after_shards(start(file, catalog), catalog, 1 + number) for number in range(KILLS)]
    assert -signal.SIGKILL in codes
    finish(file, catalog)
    check(catalog)
    assert _means(catalog) == means
    opened = Catalog.open(str(catalog))
    for _, shard in ask(catalog, "SELECT clip_id, shard FROM latents"):
        rows = read_index(f"{opened.uri}/{shard}").to_pylist()
        for clip in {row["clip_id"] for row in rows}:
            sample = read_sample(f"{opened.uri}/{shard}", [row for row in rows if row["clip_id"] == clip])
            assert sample["json"]["captions"]["caption"].startswith("after")


def _kill_after_shards(process, catalog, more):
    """Kills a run and its children once so many more shards are there; gives its exit code."""
    before = len(list(catalog.rglob("*.tar")))
    wait_until(lambda: process.poll() is not None or len(list(catalog.rglob("*.tar"))) >= before + more)
    kill(tree(process))
    process.stderr.close()
    return process.wait()


def _caption(films, word):
    for film in films.glob("*.mp4"):
        film.with_suffix(".txt").write_text(f"{word} {film.stem}")


def _means(catalog):
    """The hash of every clip's mean, as its shard's index has it."""
    found = {}
    for shard in {shard for _, shard in ask(catalog, "SELECT clip_id, shard FROM latents")}:
        rows = read_index(f"{Catalog.open(str(catalog)).uri}/{shard}").to_pylist()
        found |= {row["clip_id"]: row["xxh3"] for row in rows if row["field"] == "mean"}
    return found


def test_killed_with_the_catalog_in_a_bucket(recipes, bucket):
    file, films = recipes
    catalog = f"{bucket}/catalog"
    run_recipes(["ingest"], catalog, [str(films)], file, (), INLINE)
    dice = random.Random(KILLS)
    for number in range(max(2, KILLS // 3)):
        whom = ("driver", "all")[number % 2]
        run_and_kill(lambda: start(file, catalog), whom, (0, 1.2), dice, working=True)
    finish(file, catalog)
    check(catalog)
