"""A caption that changed in one row of many: one text is embedded again, no video is decoded."""

import csv
import json

import pytest

from curate.cli.main import main
from tests.clip_model import clip_folder
from tests.curate.running import ask, pipelines
from tests.hostile import moving_square, write_video
from tests.vae_models import vae_folder

pytestmark = pytest.mark.slow

ROWS = 10_000
RECIPES = """\
recipes:
  ingest:
    stages: [cut: {detector: fixed, seconds: 0.5, min_seconds: 0}, measure: [motion]]
  captions:
    select: SELECT * FROM clips
    stages: [caption: {source: manifest, manifest: {file: %(captions)s}}]
  latents:
    select: SELECT * FROM clips
    stages: [encode: %(encode)s]
"""


def write(path, captions):
    """A manifest of captions by clip_id, of which most are clips of other catalogs."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "caption"])
        writer.writerows(captions.items())
        writer.writerows([f"{number:032x}", f"another clip {number}"] for number in range(ROWS - len(captions)))


def test_one_changed_caption_in_ten_thousand_rows_costs_one_text_and_no_video(tmp_path, seen):
    films, catalog, captions = tmp_path / "films", str(tmp_path / "catalog"), tmp_path / "captions.csv"
    films.mkdir()
    for number in range(2):
        write_video(films / f"{number}.mp4", moving_square(36, 96, 72))
    encode = {"vae": str(vae_folder(tmp_path / "vae")), "buckets": ["9x32x48"], "fps": 24, "max_upscale": 2}
    encode["text"] = {"model": str(clip_folder()), "captions": ["caption"]}
    file = pipelines(tmp_path, RECIPES % {"captions": captions, "encode": json.dumps(encode)})

    def run(*recipes):
        return main(["run", *recipes, "--catalog", catalog, "--pipelines", str(file), "--engine", "inline"])

    assert main(["run", "ingest", "--input", str(films), "--catalog", catalog, "--pipelines", str(file)]) == 0
    ids = [clip for (clip,) in ask(catalog, "SELECT clip_id FROM clips ORDER BY uri, start_s")]
    said = {clip: f"take {number}" for number, clip in enumerate(ids)}
    write(captions, said)
    assert run("captions", "latents") == 0
    assert sorted(seen["texts"]) == sorted(said.values()) and seen["videos"] == len(ids) == 6
    before = dict(ask(catalog, "SELECT clip_id, captions_hash FROM latents"))
    for film in films.iterdir():
        film.unlink()
    write(captions, said | {ids[4]: "a square goes home"})
    seen["texts"], seen["videos"] = [], 0
    assert run("captions", "latents") == 0
    assert seen == {"texts": ["a square goes home"], "videos": 0}
    now = dict(ask(catalog, "SELECT clip_id, captions_hash FROM latents"))
    assert [clip for clip in ids if now[clip] != before[clip]] == [ids[4]]
    assert main(["verify", "--catalog", catalog]) == 0
