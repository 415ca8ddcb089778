"""One process and two learn the same, with whole or sharded weights; either resumes a run of the other."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from models.saved import transformer_files
from tests.train.runs import MODEL, losses, train, weights

pytestmark = pytest.mark.slow

STEPS = 6
FACTORISED = {"model": {**MODEL, "attention": "factorised"}}
RUNS = {
    "ddp": {"accumulate": 2},
    "fsdp": {"parallel": "fsdp", "accumulate": 2, "made": {"held_out": 4}, "validation": {"share": 0.1, "every": 3}},
    "tokens": {"kind": "tokens"},
    "factorised": FACTORISED,
    "factorised, shared out": {**FACTORISED, "parallel": "fsdp"},
    "from one to two": {"resume": True, "parallel": "fsdp", "activation_checkpointing": True},
    "from two": {"steps": 3},
}
BAD = {"made": {"bad": ["9x32x32-03"], "count": 4}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The runs by one process, and by two under torchrun (gloo), which imports torch once for all of them."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.set_num_threads(1)
    train(folder / "one", steps=STEPS, made={"held_out": 4}, validation={"share": 0.1, "every": 3})
    train(folder / "one tokens", steps=STEPS, kind="tokens")
    train(folder / "one factorised", steps=STEPS, **FACTORISED)
    train(folder / "from one to two", steps=3)
    runs = json.dumps([(str(folder / name), {"steps": STEPS, **each}) for name, each in {**RUNS, "bad": BAD}.items()])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.train.runs", runs], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[:4000]
    train(folder / "from two", steps=STEPS, resume=True)
    return folder


def by_one(folder, name):
    kind = name.split(",")[0]
    return folder / (f"one {kind}" if kind in ("tokens", "factorised") else "one")


@pytest.mark.parametrize("name", RUNS)
def test_loss_curves_agree(name, folder):
    one = losses(by_one(folder, name))
    assert len(one) == STEPS
    assert losses(folder / name) == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_so_do_the_averaged_weights(name, folder):
    one = weights(by_one(folder, name), "ema")
    two = weights(folder / name, "ema")
    assert one.keys() == two.keys()
    for each in one:
        torch.testing.assert_close(two[each], one[each], rtol=1e-3, atol=5e-4)


def test_validation_is_the_same_over_shares_of_the_clips(folder):
    lines = [json.loads(line) for line in (folder / "one" / "log.jsonl").read_text().splitlines()]
    other = [json.loads(line) for line in (folder / "fsdp" / "log.jsonl").read_text().splitlines()]
    one, two = ([line["validation"] for line in each if "validation" in line] for each in (lines, other))
    assert len(one) == 2
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=1e-4)


def test_what_is_sampled_from_is_whole_after_a_run_of_shared_out_weights(folder):
    model, _ = transformer_files.load(folder / "fsdp" / "model")
    average = weights(folder / "fsdp", "ema")
    assert all(torch.equal(value, average[name]) for name, value in model.named_parameters())


def test_all_ranks_stop_where_the_loss_of_one_is_no_number(folder):
    said = [(folder / f"bad diverged {rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert said[0].startswith("step 2: the loss is not finite for 1 of 4 clips (9x32x32-03)")
