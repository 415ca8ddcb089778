"""`clipmill:NAME` wherever the command line takes a model: in a recipe, in --set, in a training config, in options."""

import json

import pytest

from curate.cli.main import main
from tests.curate.running import pipelines
from tests.hostile import moving_square, write_video
from tests.vae_models import vae_folder

pytestmark = pytest.mark.slow

RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0}
      - cut: {detector: fixed, seconds: 1, min_seconds: 0.5}
      - measure: [motion]
      - embed: {model: "clipmill:tiny_clip"}
  captions:
    select: SELECT * FROM clips
    stages:
      - caption: {source: manifest, match: {model: clipmill:tiny_clip}}
  latents:
    select: SELECT * FROM clips
    stages:
      - encode:
          vae: vae
          buckets: [9x32x32]
          fps: 8
          text: {model: clipmill:tiny_text}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder outside of the checkout with two films, a CSV of captions, recipes and a catalog."""
    place = tmp_path_factory.mktemp("shipped")
    for name in ("a.mp4", "b.mp4"):
        write_video(place / name, moving_square(48, 96, 72))
    (place / "films.csv").write_text("file,caption\na.mp4,a red circle\nb.mp4,a blue square\n")
    pipelines(place, RECIPES)
    vae_folder(place / "vae")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run("ingest", "--input", "films.csv") == 0
    return place


@pytest.fixture(autouse=True)
def there(place, monkeypatch):
    monkeypatch.chdir(place)


def run(recipe, *more):
    return main(["run", recipe, "--catalog", "catalog", "--engine", "inline", *more])


def test_embed_match_and_search_take_it(capsys):
    assert run("captions") == 0
    capsys.readouterr()
    query = "SELECT DISTINCT embeddings_model, caption_match_model FROM clips"
    assert main(["sql", query, "--catalog", "catalog", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"embeddings_model": "tiny_clip", "caption_match_model": "tiny_clip"}
    ]
    for model in ([], ["--model", "clipmill:tiny_clip"]):
        assert main(["search", "a circle", "--catalog", "catalog", "-k", "1", "--format", "csv", *model]) == 0
        assert capsys.readouterr().out.count("\n") == 2


def test_the_catalog_notes_the_name_so_that_another_machine_finds_the_model(capsys):
    assert main(["sql", "SELECT stages FROM runs", "--catalog", "catalog", "--format", "csv"]) == 0
    said = capsys.readouterr().out
    assert "clipmill:tiny_clip" in said and "shipped" not in said


@pytest.mark.parametrize(
    ("recipe", "setting", "where"),
    [
        ("ingest", "embed.model=clipmill:tiny", "embed"),
        ("captions", "caption.match.model=clipmill:tiny", "caption"),
        ("captions", "caption.match={model: clipmill:tiny}", "caption"),
        ("latents", "encode.vae=clipmill:tiny", "encode"),
        ("latents", "encode.text.model=clipmill:tiny", "encode"),
    ],
)
def test_an_unknown_one_is_one_line_with_those_that_ship(capsys, recipe, setting, where):
    more = ["--input", "films.csv"] if recipe == "ingest" else []
    assert run(recipe, "--set", setting, *more) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and where in said
    assert "'clipmill:tiny' does not ship" in said and "clipmill:tiny_clip, clipmill:tiny_text" in said


def test_search_with_an_unknown_one_is_one_line(capsys):
    assert main(["search", "a circle", "--catalog", "catalog", "--model", "clipmill:tiny"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "clipmill:tiny_clip, clipmill:tiny_text" in said
