"""Runs leave notes at what they learn from, and record it themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from curate.training.run_notes import NOTES, RunNote, note_run, run_notes
from models.saved import transformer_files
from models.settings.validation import ConfigError
from tests.train.made_up import data
from tests.train.runs import config, train
from train.loop.network import build, start_from
from train.run.lineage import START, ancestor, ancestors_of


@pytest.mark.parametrize("store", ["local", "s3"])
def test_a_note_is_found_at_the_place_where_it_was_left(store, tmp_path, request):
    place = str(tmp_path) if store == "local" else request.getfixturevalue("bucket") + "/catalog"
    assert run_notes(place) == []
    for _ in range(2):  # a resumed run
        note_run(place, Path("run"), "ab")
    note_run(place, Path("/runs/other"), "cd")
    assert run_notes(place) == [RunNote("ab", str(Path.cwd() / "run")), RunNote("cd", "/runs/other")]


def test_a_place_that_cannot_be_written_is_said_with_what_to_give_trace(tmp_path, capsys):
    (tmp_path / NOTES).write_text("a file is in the way")
    note_run(str(tmp_path), Path("run"), "ab")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: ") and line.endswith("`clipmill trace` finds this run with --runs run")
    assert run_notes(str(tmp_path)) == []


@pytest.mark.slow
def test_a_resumed_run_keeps_its_id_and_the_step_that_it_started_from(tmp_path):
    """Though the run that it started from has gone on since."""
    train(tmp_path / "parent", steps=3)
    train(tmp_path / "child", steps=3, start=str(tmp_path / "parent"))
    before = json.loads((tmp_path / "child/config.json").read_text())
    train(tmp_path / "parent", steps=6, resume=True)
    train(tmp_path / "child", steps=6, start=str(tmp_path / "parent"), resume=True)
    after = json.loads((tmp_path / "child/config.json").read_text())
    (parent,) = ancestors_of(after)
    assert (parent.how, parent.step, parent.path) == (START, 3, str(tmp_path / "parent"))
    assert {name: before[name] for name in ("run_id", "learned_from", "identity")} == {
        name: after[name] for name in ("run_id", "learned_from", "identity")
    }
    assert ancestor(tmp_path / "parent", START).step == 6
    assert ancestor(tmp_path / "parent/model", START).run_id == parent.run_id


@pytest.mark.slow
def test_a_run_starts_with_the_averaged_weights_of_another_of_the_same_network(tmp_path):
    train(tmp_path / "parent", steps=3)
    there, _ = transformer_files.load(tmp_path / "parent/model")
    for place in (tmp_path / "parent", tmp_path / "parent/model"):
        network = build(config(seed=9), data(4))
        start_from(network, str(place))
        assert all(torch.equal(network.state_dict()[name], value) for name, value in there.state_dict().items())
    other = build(config(model={**config().model, "depth": 1}), data(4))
    with pytest.raises(ConfigError, match=r"start: .* is a network of other settings: depth 2 there, 1 here"):
        start_from(other, str(tmp_path / "parent"))
    with pytest.raises(ConfigError, match=r"start: .*nowhere is no network of clipmill"):
        start_from(other, str(tmp_path / "nowhere"))
