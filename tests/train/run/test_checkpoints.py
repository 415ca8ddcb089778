"""Checkpoints are whole or absent, whatever ends the process, and give back what was saved, bit by bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from tests.full_disk import files_of_at_most
from train.run.checkpoints import Checkpoints

GROUPS = {
    "model": {"a.weight": torch.randn(3, 4), "b": torch.arange(3, dtype=torch.int64)},
    "rng": {"cpu": torch.arange(256, dtype=torch.uint8), "scalar": torch.tensor(2.5)},
    "half": {"c": torch.randn(5).bfloat16()},
}


def test_what_is_read_is_what_was_saved_bit_by_bit(tmp_path):
    Checkpoints(tmp_path).save(7, GROUPS, {"step": 7, "loader": {"epoch": 1}}, wait=True)
    step, tensors, numbers = Checkpoints(tmp_path).latest()
    assert (step, numbers) == (7, {"step": 7, "loader": {"epoch": 1}})
    assert {group: set(each) for group, each in tensors.items()} == {group: set(each) for group, each in GROUPS.items()}
    for group, each in GROUPS.items():
        for name, tensor in each.items():
            assert tensors[group][name].dtype == tensor.dtype
            assert torch.equal(tensors[group][name], tensor)


def test_all_who_may_read_by_the_umask_can_read_a_checkpoint(tmp_path):
    before = os.umask(0o027)
    try:
        Checkpoints(tmp_path / "run").save(7, GROUPS, {}, wait=True)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) == 4 and {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_what_changes_after_save_returns_is_not_in_the_checkpoint(tmp_path):
    weight = torch.zeros(1 << 20)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model": {"w": weight}}, {})
    weight += 1
    assert checkpoints.latest()[1]["model"]["w"].abs().max() == 0


def test_what_is_a_copy_already_is_not_copied_again(tmp_path):
    written = []
    for copied in (False, True):
        then = written.append
        Checkpoints(tmp_path).save(int(copied), GROUPS, {}, wait=True, then=then, copied=copied)
    weight = GROUPS["model"]["a.weight"]
    assert [each["model"]["a.weight"].data_ptr() == weight.data_ptr() for each in written] == [False, True]


def test_the_last_ones_are_kept_and_the_later_of_two_of_one_step(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    for step, value in ((1, 1.0), (2, 2.0), (10, 3.0), (10, 4.0)):
        checkpoints.save(step, {"m": {"w": torch.tensor(value)}}, {"value": value})
    step, tensors, numbers = checkpoints.latest()
    assert (step, float(tensors["m"]["w"]), numbers) == (10, 4.0, {"value": 4.0, "step": 10})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["00000002", "00000010"]


def test_a_checkpoint_that_was_being_replaced_when_the_process_died_is_there(tmp_path):
    Checkpoints(tmp_path).save(3, GROUPS, {}, wait=True)
    (tmp_path / "00000003").rename(tmp_path / ".00000003.old")
    assert Checkpoints(tmp_path).latest()[0] == 3


def test_what_writing_raises_is_raised_by_the_next_call(tmp_path):
    (tmp_path / "file").write_text("no folder")
    checkpoints = Checkpoints(tmp_path / "file")
    checkpoints.save(1, GROUPS, {})
    with pytest.raises(OSError):
        checkpoints.wait()


def test_a_full_disk_leaves_the_checkpoint_before_and_no_part_of_the_new_one_in_its_place(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, GROUPS, {}, wait=True)
    with (
        files_of_at_most(1 << 20),
        pytest.raises(OSError, match=r"00000002.*model\.safetensors can't be written .*too large"),
    ):
        checkpoints.save(2, {"model": {"w": torch.zeros(1 << 20)}}, {}, wait=True)
    assert [each.name for each in tmp_path.iterdir()] == ["00000001"]
    checkpoints.save(3, GROUPS, {}, wait=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["00000001", "00000003"]


def test_a_damaged_one_is_refused_in_one_line_that_says_what_to_do(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, GROUPS, {}, wait=True)
    file = tmp_path / "00000003" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"00000003 can't be read .*removed") as raised:
        checkpoints.latest()
    assert "\n" not in str(raised.value)


DAMAGES = [
    (lambda last: (last / "rng.safetensors").unlink(), "rng.safetensors: No such file"),
    (lambda last: shutil.copy(last.parent / "00000002" / "rng.safetensors", last), "rng.safetensors is not as it was"),
    (lambda last: shutil.copy(last.parent / "00000002" / "numbers.json", last), "numbers.json is of step 2"),
    (lambda last: (last / "numbers.json").unlink(), "numbers.json: No such file"),
    (lambda last: (last / "numbers.json").write_text('{"step": 3'), "numbers.json does not say"),
    (lambda last: (last / "numbers.json").write_bytes(b"\xff"), "numbers.json does not say"),
    (lambda last: (last / "numbers.json").write_text('{"step": 3}'), "numbers.json does not say .*'files'"),
    (lambda last: (last / "numbers.json").write_text('{"step": 3, "files": []}'), "numbers.json does not say"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_so_is_one_of_which_a_file_is_missing_or_another_steps(damage, said, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 3):
        groups = {**GROUPS, "rng": {"cpu": torch.full((256,), step, dtype=torch.uint8)}}
        checkpoints.save(step, groups, {}, wait=True)
    damage(tmp_path / "00000003")
    with pytest.raises(ValueError, match=rf"00000003 can't be read \({said}") as raised:
        checkpoints.latest()
    assert "\n" not in str(raised.value)


WRITER = """
import sys, torch
from train.run.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=2)
for step in range(1, 10_000):
    checkpoints.save(step, {"m": {str(i): torch.full((1 << 18,), float(step)) for i in range(4)}}, {"step": step})
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_whole_checkpoints_only(tmp_path):
    """Every folder with a step's name is read whole and of that step, after each of two kills."""
    chance = random.Random(0)
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            writer.stdout.readline()
        time.sleep(chance.random() * 0.05)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        checkpoints = Checkpoints(tmp_path)
        assert checkpoints.steps()
        for step in checkpoints.steps():
            assert all(float(w.min()) == float(w.max()) == step for w in _weights(checkpoints.place(step)))
        assert checkpoints.latest()[2] == {"step": checkpoints.steps()[-1]}


def _weights(place):
    weights = load_file(place / "m.safetensors").values()
    assert len(weights) == 4
    return weights
