"""`batch_size` by bucket and `balanced`, through the command line: refused, trained on, recorded and resumed."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from curate.cli.main import main
from curate.datasets.create import run_dataset_create
from tests.curate.loader import latents
from train.run.log import read_log

BUCKETS = {"5x32x32": 16, "1x32x32": 24}
CONFIG = {
    "model": {"size": "debug", "width": 48, "depth": 1, "heads": 4},
    "steps": 6,
    "peak_tflops": 0.1,
    "optimizer": {"warmup": 1},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    uri = latents.make_catalog(folder / "catalog", BUCKETS, per_shard=8)
    run_dataset_create("all", uri, "SELECT clip_id FROM clips", output=str(folder))
    return uri, folder / "all"


def train(folder, dataset, *more, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, **changes}))
    return main(["train", str(path), "--dataset", str(dataset[1]), "-o", str(folder / "run"), *more])


def drawn(folder):
    return [(line["step"], line["bucket"], line["loss"]) for line in read_log(folder / "run") if "loss" in line]


REFUSED = [
    ({"9x9x9": 1, "5x32x32": 1, "1x32x32": 1}, "batch_size of 9x9x9: the dataset has the buckets 1x32x32, 5x32x32"),
    ({"5x32x32": 2}, "batch_size lacks a size for the bucket 1x32x32 of the dataset"),
    ({"5x32x32": 0, "1x32x32": 4}, "batch_size.5x32x32 0: at least 1"),
    ("balanced", "batch_size 'balanced' needs balance.tokens, the most of a step, or balance.seconds"),
]


@pytest.mark.parametrize(("size", "said"), REFUSED, ids=str)
def test_what_does_not_fit_the_dataset_is_one_line_and_leaves_no_run(size, said, dataset, tmp_path, capsys):
    assert train(tmp_path, dataset, batch_size=size) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"clipmill: {said}"
    assert not (tmp_path / "run").exists()


def test_each_bucket_has_its_size_and_a_resumed_run_goes_on_as_it_would_have(dataset, tmp_path, capsys):
    sizes = {"5x32x32": 2, "1x32x32": 8}
    assert train(tmp_path, dataset, "--set", "steps=2", batch_size=sizes) == 0
    assert "8 (1x32x32), 2 (5x32x32) clips each" in capsys.readouterr().err
    assert train(tmp_path, dataset, "--resume", batch_size=sizes) == 0
    (tmp_path / "whole").mkdir()
    assert train(tmp_path / "whole", dataset, batch_size=sizes) == 0
    assert drawn(tmp_path) == drawn(tmp_path / "whole")
    counts = Counter(bucket for _, bucket, _ in drawn(tmp_path))
    assert counts["5x32x32"] > counts["1x32x32"] > 0  # 8 batches of 2 clips for every 3 batches of 8
    capsys.readouterr()
    assert train(tmp_path, dataset, "--resume", batch_size={**sizes, "5x32x32": 4}) == 2
    assert "batch_size.5x32x32: 2 in the checkpoint, 4 here" in capsys.readouterr().err


@pytest.mark.parametrize("budget", [{"tokens": 96}, {"seconds": 0.05}], ids=str)
def test_balanced_sizes_are_said_recorded_and_taken_again(budget, dataset, tmp_path, capsys):
    changes = {"batch_size": "balanced", "balance": budget}
    assert train(tmp_path, dataset, "--set", "steps=2", **changes) == 0
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["balanced"]
    sizes = recorded["sizes"]
    said = capsys.readouterr().err
    assert f"balanced batches: {sizes['1x32x32']} of 1x32x32, {sizes['5x32x32']} of 5x32x32; a clip costs" in said
    assert {each["bucket"] for each in recorded["timed"]} == set(BUCKETS)
    if "tokens" in budget:  # 8 and 4 tokens a clip
        assert 8 * sizes["5x32x32"] <= 96 and 4 * sizes["1x32x32"] <= 96
    assert train(tmp_path, dataset, "--resume", **changes) == 0
    assert "balanced batches" not in capsys.readouterr().err
    again = json.loads((tmp_path / "run" / "config.json").read_text())["balanced"]
    assert again == recorded
    (tmp_path / "given").mkdir()
    assert train(tmp_path / "given", dataset, batch_size=sizes) == 0
    assert drawn(tmp_path) == drawn(tmp_path / "given")


def test_trace_counts_the_draws_of_balanced_batches(dataset, tmp_path, capsys):
    assert train(tmp_path, dataset, batch_size="balanced", balance={"tokens": 48}) == 0
    sizes = json.loads((tmp_path / "run" / "config.json").read_text())["balanced"]["sizes"]
    wanted = sum(sizes[bucket] for _, bucket, _ in drawn(tmp_path))
    capsys.readouterr()
    assert main(["trace", "--catalog", dataset[0], "--where", "true", "--format", "json"]) == 0
    lines = [each for each in json.loads(capsys.readouterr().out) if each["where"] == str(tmp_path / "run")]
    assert {(each["what"], each["times"]) for each in lines} == {("checkpoint", wanted), ("model", wanted)}
