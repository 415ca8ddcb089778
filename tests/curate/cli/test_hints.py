"""What a small mistake of a setting is answered with, through the command line."""

import json

import pytest

from curate.cli.main import main
from tests.curate.running import pipelines
from tests.hostile import moving_square, write_video

RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0}
      - cut: {detector: fixed, seconds: 1, min_seconds: 0.5}
      - measure: [motion]
  captions:
    select: SELECT * FROM clips
    stages:
      - caption: {source: manifest}
  latents:
    select: SELECT * FROM clips
    stages:
      - encode: %s
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A folder with a film of two clips in a catalog; runs a command there and gives (exit code, its lines)."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", moving_square(48, 96, 72))
    pipelines(tmp_path, RECIPES % "{vae: x, buckets: [9x32x48]}")

    def command(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, (said.out + said.err).splitlines()

    assert command("run", "ingest", "--input", "a.mp4", "--catalog", "catalog", "--engine", "inline")[0] == 0
    return command


@pytest.mark.parametrize(
    ("setting", "words"),
    [("optimiser.lr=0.1", "did you mean optimizer?"), ("optimizer.weight_decey=1", "did you mean weight_decay?")],
)
def test_a_setting_of_training_that_is_misspelled_names_the_nearest(run, tmp_path, setting, words):
    (tmp_path / "train.json").write_text("{}")
    code, said = run("train", "train.json", "--dataset", "nowhere", "-o", "run", "--set", setting)
    assert code == 2 and len(said) == 1 and said[0].endswith(words), said


def test_a_setting_of_a_stage_that_is_misspelled_names_the_nearest(run):
    code, said = run("run", "ingest", "--input", "a.mp4", "--catalog", "catalog", "--set", "cut.min_second=1")
    assert code == 2 and len(said) == 1 and "min_seconds" in said[0]


def test_a_value_without_quotes_is_told_of_quotes(run):
    code, said = run("sheet", "--catalog", "catalog", "--where", "verdict = kept", "-o", "x.png")
    assert code == 2 and said == [said[0]] and said[0].endswith("a text goes in single quotes: 'kept'")


def test_a_missing_caption_column_is_told_with_settings_as_they_are_written(run):
    code, said = run("run", "captions", "--catalog", "catalog", "--engine", "inline")
    assert code == 2 and "`manifest: {column: {caption: COLUMN}}`" in said[-1] and "{{" not in said[-1]


@pytest.mark.slow
def test_a_bucket_is_called_empty_only_where_there_was_something_to_encode(run, tmp_path):
    from tests.vae_models import vae_folder

    vae = vae_folder(tmp_path / "vae")
    encode = {"vae": str(vae), "buckets": ["5x32x48", "65x32x48"], "fps": 8, "max_upscale": 2}
    pipelines(tmp_path, RECIPES % json.dumps(encode))
    line = "encode: no clip of this run takes the bucket 65x32x48"
    latents = ("run", "latents", "--catalog", "catalog", "--engine", "inline")
    code, said = run(*latents)
    assert code == 0 and line in said
    code, said = run(*latents)
    assert code == 0 and line not in said


@pytest.mark.slow
def test_a_bucket_that_a_run_never_learned_is_noted_and_sampled_all_the_same(run, tmp_path):
    from tests.curate.generate.test_sample import untrained_run

    folder = untrained_run(tmp_path)
    words = ["sample", folder / "run", "--prompt", "a red circle", "--steps", "1", "-o", "x.mp4"]
    code, said = run(*words, "--bucket", "1x32x32")
    note = "note: the run did not learn from 1x32x32 but from 1x64x64, 9x64x64: samples may be poor"
    assert code == 0 and note in said
    code, said = run(*words, "--bucket", "9x64x64")
    assert code == 0 and not any("did not learn" in line for line in said)
