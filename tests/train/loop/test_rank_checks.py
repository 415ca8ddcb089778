"""On two ranks (gloo): compiled blocks stay whole, sharded weights generate, and a checkpoint is copied once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank has found."""
    folder = tmp_path_factory.mktemp("rank_checks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.train.loop.rank_checks", str(folder)],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:4000]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_blocks_compile_to_one_graph_without_a_break(how, checkpointed, found):
    """All blocks share it. DistributedDataParallel would cut it into four."""
    for rank in found:
        assert rank[f"{how} {checkpointed}"] == {"graphs": 1, "blocks": 2}


def test_sharded_weights_generate_the_tokens_of_whole_ones(found):
    for rank in found:
        generated = rank["generated"]
        assert generated["sharded"] == generated["whole"] == found[0]["generated"]["whole"]
        assert len(set(generated["whole"])) > 1 and 0.4 < generated["held"] < 0.6


def test_a_checkpoint_of_sharded_weights_is_not_copied_again(found):
    """What is gathered from the ranks is the copy that is written."""
    assert found[0]["copied"]["copied"] < found[0]["copied"]["whole"] / 100
    assert found[1]["copied"]["whole"] == 0
