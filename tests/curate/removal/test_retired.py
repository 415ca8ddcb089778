"""Training after a purge: a retired dataset is refused with the reason, and a run on its successor starts."""

import json

import pytest

from curate.cli.main import main
from curate.datasets.create import run_dataset_create
from curate.datasets.files import open_dataset
from tests.curate.loader.latents import BUCKETS, clip_ids, contract, make_catalog

pytestmark = pytest.mark.slow
CONFIG = {
    "kind": "dit",
    "model": {"size": "debug", "width": 48, "depth": 1, "heads": 4},
    "steps": 2,
    "batch_size": 2,
    "peak_tflops": 0.1,
    "optimizer": {"warmup": 1},
}


def test_a_run_is_not_resumed_on_a_retired_dataset_and_starts_on_its_successor(tmp_path, capsys):
    uri = make_catalog(tmp_path / "catalog", {"5x32x32": 8, "1x32x32": 4}, contract(text=False))
    run_dataset_create("old", uri, "SELECT clip_id FROM clips", output=str(tmp_path))
    old, config = tmp_path / "old", tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    train = ["train", str(config), "--dataset", str(old), "-o", str(tmp_path / "run")]
    assert main(train) == 0
    gone = clip_ids({"5x32x32": 8})["5x32x32"][3]
    assert main(["purge", "--catalog", uri, "--where", f"clip_id = '{gone}'", "--yes"]) == 0
    successor = open_dataset(old).retired["successor"]
    capsys.readouterr()
    config.write_text(json.dumps(CONFIG | {"steps": 4}))
    assert main([*train, "--resume"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "1 of its 12 samples were purged from the catalog" in said
    assert f"start a new run on its successor {successor}" in said
    assert main(["train", str(config), "--dataset", successor, "-o", str(tmp_path / "new")]) == 0
    capsys.readouterr()
    assert main(["train", str(config), "--dataset", successor, "-o", str(tmp_path / "run"), "--resume"]) == 2
    assert "old of " in capsys.readouterr().err  # the run began with other data


def test_a_second_purge_of_the_successor_makes_a_third(tmp_path):
    uri = make_catalog(tmp_path / "catalog")
    run_dataset_create("first", uri, "SELECT clip_id FROM clips", output=str(tmp_path))
    one, two = clip_ids(BUCKETS)["5x16x24"][:2]
    folder = str(tmp_path / "first")
    for count, gone in enumerate((one, two), 1):
        assert main(["purge", "--catalog", uri, "--where", f"clip_id = '{gone}'", "--yes"]) == 0
        folder = open_dataset(folder).retired["successor"]
        assert open_dataset(folder).samples == 17 - count
        assert open_dataset(folder).retired is None
    first = open_dataset(tmp_path / "first")
    ids = first.columns(["clip_id"])["clip_id"].to_pylist()
    assert sum(name.startswith("purged:") for name in ids) == 2  # of the second purge too
