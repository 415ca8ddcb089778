"""A run that is interrupted at any moment and resumed is the uninterrupted run: the same parameters bit by bit."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.saved import transformer_files
from models.settings.validation import ConfigError
from tests.train.made_up import data
from tests.train.runs import MODEL, config, losses, train, weights
from train.loop.training import Training
from train.run.log import read_log
from train.run.run_folder import check_folder

pytestmark = pytest.mark.slow

GROUPS = ("model", "ema", "optimizer")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of 8 steps that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    torch.set_num_threads(1)
    train(folder)
    return folder


def same(one, other):
    for group in GROUPS:
        a, b = weights(one, group), weights(other, group)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), group


@pytest.mark.parametrize("steps", [1, 5])
def test_a_resumed_run_has_the_same_parameters_bit_by_bit(steps, straight, tmp_path):
    answers = iter([False] * (steps - 1) + [True])
    Training(config(), data(4), tmp_path / "run", stop=lambda: next(answers), quiet=True).run()
    torch.manual_seed(99)  # the state of torch's generator must not matter
    train(tmp_path / "run", resume=True)
    same(tmp_path / "run", straight)
    assert losses(tmp_path / "run") == losses(straight)
    assert [line["step"] for line in read_log(tmp_path / "run")] == list(range(1, 9))


def test_so_has_a_run_of_tokens(tmp_path):
    train(tmp_path / "whole", kind="tokens")
    answers = iter([False, False, False, True])
    training = Training(config(kind="tokens"), data(4, kind="tokens"), tmp_path / "run", stop=lambda: next(answers))
    training.run()
    train(tmp_path / "run", resume=True, kind="tokens")
    same(tmp_path / "run", tmp_path / "whole")


def test_so_has_a_run_that_was_killed_at_a_random_moment(straight, tmp_path):
    folder, often = tmp_path / "run", {"checkpoint": {"every": 1, "keep": 2}}
    command = [sys.executable, "-m", "tests.train.runs", json.dumps([(str(folder), often)])]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not read_log(folder) and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.Random(0).random() * 0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_log(folder)
    train(folder, resume=True, **often)
    same(folder, straight)
    assert [line["step"] for line in read_log(folder)] == list(range(1, 9))
    assert losses(folder) == losses(straight)


def test_a_run_that_has_no_checkpoint_yet_begins_again(straight, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "lo')
    train(tmp_path / "run", resume=True)
    same(tmp_path / "run", straight)
    assert [line["step"] for line in read_log(tmp_path / "run")] == list(range(1, 9))


def test_a_finished_run_is_left_as_it_is(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    training = train(tmp_path / "run", resume=True)
    assert training.step == 8
    same(tmp_path / "run", straight)
    (tmp_path / "run" / "model" / "config.json").unlink()  # the process ended between the checkpoint and the model
    train(tmp_path / "run", resume=True)
    assert transformer_files.load(tmp_path / "run" / "model")[1]["step"] == 8


def test_a_constant_rate_lets_a_run_be_made_longer(tmp_path):
    train(tmp_path / "long", steps=8)
    train(tmp_path / "short", steps=4)
    train(tmp_path / "short", steps=8, resume=True)
    same(tmp_path / "short", tmp_path / "long")


REFUSED = [
    ({"model": {**MODEL, "depth": 3}}, {}, "is of another model: depth 2 in the checkpoint, 3 here"),
    ({"seed": 1}, {}, "is of another config: seed: 0 in the checkpoint, 1 here"),
    ({"batch_size": 2}, {}, "batch_size: 4 in the checkpoint, 2 here"),
    ({"optimizer": {"lr": 0.1}}, {}, r"optimizer.lr: 0.002 in the checkpoint, 0.1 here"),
    ({"optimizer": {"lr": 2e-3, "schedule": "cosine"}}, {}, 'schedule: "constant" in the checkpoint, "cosine" here'),
    ({"kind": "tokens"}, {}, "is a run of kind 'dit', the config is of kind 'tokens'"),
    ({}, {"fingerprint": "0" * 64}, "is of another contract: fingerprint f+… in the checkpoint, 0+… here"),
    ({}, {"dtype": "bfloat16"}, "is of another contract: dtype float16 in the checkpoint, bfloat16 here"),
    ({}, {"std": [1.0, 1.0, 0.5, 1.0]}, r"another contract: std \[2.0, .* in the checkpoint, \[1.0, .* here"),
]


@pytest.mark.parametrize(("changes", "contract", "said"), REFUSED)
def test_a_checkpoint_of_something_else_is_refused_naming_both_sides(changes, contract, said, straight, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    changed = (
        {"model": {**MODEL, "mixer_depth": 1, "mask_ratio": 0.25}, **changes}
        if "model" not in changes
        else {"model": {**changes["model"], "mixer_depth": 1, "mask_ratio": 0.25}}
    )
    if changes.get("kind") == "tokens":
        changed = changes
    chosen = config(**changed)
    made = data(chosen.batch_size, kind=chosen.kind)
    made = dataclasses.replace(made, contract={**made.contract, **contract})
    with pytest.raises(ConfigError, match=said) as raised:
        Training(chosen, made, folder, resume=True, quiet=True)
    assert "\n" not in str(raised.value)
    same(folder, straight)
    for name in ("config.json", "log.jsonl"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes()


def test_so_is_one_of_other_samples(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    made = dataclasses.replace(data(4), identity="13 clips")
    with pytest.raises(ConfigError, match="another dataset: its samples have the hash 12 made up clips, those here 13"):
        Training(config(), made, tmp_path / "run", resume=True, quiet=True)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: t | {"patches.weight": t["patches.weight"].half()}, r"patches.weight is \[48, 16\] float16 in the"),
        (lambda t: t | {"patches.bias": t["patches.bias"][:-1].clone()}, r"patches.bias is \[47\] float32 in the"),
        (lambda t: {k: v for k, v in t.items() if k != "patches.bias"}, "patches.bias is not in the checkpoint"),
        (lambda t: t | {"extra": t["patches.bias"].clone()}, "extra is only in the checkpoint"),
    ],
)
def test_so_is_one_whose_weights_have_another_shape_or_dtype(damage, said, straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "00000008" / "model.safetensors"
    save_file(damage(load_file(file)), file)
    numbers = json.loads((file.parent / "numbers.json").read_text())
    numbers["files"][file.name] = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    (file.parent / "numbers.json").write_text(json.dumps(numbers))
    with pytest.raises(ConfigError, match="00000008 is of another model: " + said):
        train(tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(straight, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    last = folder / "checkpoints" / "00000008"
    (last / "ema.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=re.escape(f"{last} can't be read")):
        train(folder, resume=True)
    shutil.rmtree(last)
    train(folder, resume=True)
    same(folder, straight)


def test_a_checkpoint_without_the_optimisers_state_is_refused_and_nothing_is_changed(straight, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    (folder / "checkpoints" / "00000008" / "optimizer.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"00000008 can't be read \(optimizer.safetensors: No such file"):
        train(folder, resume=True)
    assert (folder / "log.jsonl").read_bytes() == (straight / "log.jsonl").read_bytes()


HOLDER = """
import sys
from pathlib import Path
from train.run.run_folder import lock
lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_that_another_process_trains_is_refused_until_that_one_has_ended(straight, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=r"run is being trained by another process") as raised:
            train(folder, resume=True)
        assert "\n" not in str(raised.value)
        other.kill()
    training = Training(config(), data(4), folder, resume=True, quiet=True)
    with (folder / ".lock").open("a") as theirs:
        with pytest.raises(BlockingIOError):
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        training.run()
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)  # at its end it is free again


def test_a_lock_alone_is_no_run(tmp_path):
    (tmp_path / ".lock").touch()
    check_folder(tmp_path, "dit", resume=False)


def test_a_folder_that_is_no_run_is_not_gone_on_with(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config.json is no run's"):
        train(tmp_path, resume=True)
