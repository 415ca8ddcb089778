"""`clipmill train` on real shards: what it leaves, what it needs installed, and one clear line for what can't work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
import torch

from curate.cli.main import main
from curate.datasets.create import run_dataset_create
from curate.datasets.files import open_dataset
from curate.training.data import training_data
from curate.training.held_out import split
from models.saved import vae_files
from models.settings.vae import sized
from models.vae.causal_vae import CausalVAE
from stages.latent_coders.describe import describe_coder
from tests.curate.loader import latents
from tests.waiting import wait_until
from train.config.training import TrainConfig, ValidationConfig
from train.devices.parallel import Ranks
from train.run.checkpoints import Checkpoints
from train.run.log import read_log
from train.sampling.trained_run import load_run

pytestmark = pytest.mark.slow

BUCKETS = {"5x32x32": 12, "1x32x32": 8}
CONFIG = {
    "kind": "dit",
    "model": {"size": "debug", "width": 48, "depth": 1, "heads": 4},
    "steps": 3,
    "batch_size": 4,
    "peak_tflops": 0.1,
    "optimizer": {"warmup": 1},
}


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("vae")
    settings = sized("debug", channels=latents.Z, width=8, groups=4)
    vae_files.save(CausalVAE(settings), folder, (0.5,) * latents.Z, (2.0,) * latents.Z)
    return folder


def made(folder: Path, name: str, **contract) -> Path:
    """A dataset of 20 clips in two buckets and four sources, most of them of one."""
    uri = latents.make_catalog(folder / f"{name} catalog", BUCKETS, latents.contract(**contract), per_shard=6)
    run_dataset_create(name, uri, "SELECT clip_id FROM clips", output=str(folder))
    return folder / name


@pytest.fixture(scope="module")
def dataset(vae, tmp_path_factory):
    return made(tmp_path_factory.mktemp("datasets"), "all", fingerprint=describe_coder(str(vae)).fingerprint)


def written(folder: Path, **changes) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, **changes}))
    return str(path)


def train(folder: Path, dataset: Path, *more: str, **changes) -> int:
    return main(["train", written(folder, **changes), "--dataset", str(dataset), "-o", str(folder / "run"), *more])


def test_a_run_leaves_all_that_samples_need_and_draws_some_itself(dataset, vae, tmp_path):
    settings = ["--set", "samples.every=2", "--set", "samples.steps=2", "--set", "samples.count=2"]
    changes = {"vae": str(vae), "validation": {"share": 0.4, "by": "clip", "every": 2}}
    assert train(tmp_path, dataset, *settings, **changes) == 0
    run = load_run(tmp_path / "run")
    assert run.contract == json.loads((dataset / "dataset.json").read_text())["contract"]
    assert run.network.settings.conditions == ("motion",) and torch.equal(run.empty, torch.tensor(latents.EMPTY))
    assert run.extra["vae"] == str(vae) and run.extra["dataset"] == str(dataset) and run.extra["step"] == 3
    assert {name: bucket["samples"] for name, bucket in run.extra["buckets"].items()} == BUCKETS
    lines = read_log(tmp_path / "run")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    assert [line["step"] for line in lines if "validation" in line] == [2, 3]
    pictures = sorted(each.name for each in (tmp_path / "run" / "samples").iterdir())
    assert pictures == ["00000002.mp4", "00000002.png", "00000003.mp4", "00000003.png"]
    for name in pictures[:2]:
        assert (tmp_path / "run" / "samples" / name).stat().st_size > 1000


@pytest.mark.parametrize("contract", [{"dtype": "bfloat16"}, {"tokens": 32}, {"text": False}])
def test_every_kind_of_latent_is_trained_on(contract, tmp_path):
    folder = made(tmp_path, "other", **contract)
    assert train(tmp_path, folder, kind="tokens" if "tokens" in contract else "dit") == 0
    run = load_run(tmp_path / "run")
    assert run.tokens == ("tokens" in contract) and (run.empty is None) == ("text" in contract)


ONLY = """
import sys
ALLOWED = {*sys.stdlib_module_names, "torch", "torchgen", "functorch", "numpy", "pyarrow", "safetensors",
           "curate", "stages", "models", "train",
           "filelock", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"}  # torch's own
class Only:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return self.finder.find_spec(name, path, target) if name.split(".")[0] in ALLOWED else None
sys.meta_path[:] = [Only(finder) for finder in sys.meta_path]
import runpy
sys.argv = ["clipmill", *sys.argv[1:]]
runpy.run_module("curate.cli", run_name="__main__")
"""


def test_torch_numpy_pyarrow_and_safetensors_are_enough(dataset, tmp_path):
    """Everything else that is installed here cannot be found by the process that trains."""
    config = written(tmp_path, text_model="a/name")  # which nothing here could look up
    arguments = ["train", config, "--dataset", str(dataset), "-o", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", ONLY, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    extra = load_run(tmp_path / "run").extra
    assert (extra["step"], extra["text_model"]) == (3, "a/name")
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_yaml_is_a_config_too_and_set_goes_over_it(dataset, tmp_path):
    (tmp_path / "config.yaml").write_text(
        json.dumps(CONFIG).replace("{", "{ ", 1) + "  # a comment, which JSON has not\n"
    )
    arguments = ["train", str(tmp_path / "config.yaml"), "--dataset", str(dataset), "-o", str(tmp_path / "run")]
    assert main([*arguments, "--set", "steps=1", "--set", "optimizer.lr=0.5", "--set", "peak_tflops=null"]) == 0
    (line,) = read_log(tmp_path / "run")
    assert (line["step"], line["lr"]) == (1, 0.5) and 0 < line["mfu"] < 1  # of what a large product reaches here


def test_ctrl_c_leaves_a_checkpoint_that_resume_goes_on_from(dataset, tmp_path, capsys):
    def interrupt():
        wait_until(lambda: len(read_log(tmp_path / "run")) >= 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert train(tmp_path, dataset, steps=100_000) == 130
    thread.join()
    step = Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1]
    assert f"stopped after step {step:,}; --resume goes on" in capsys.readouterr().err
    assert train(tmp_path, dataset, "--resume", steps=step + 1) == 0
    assert [line["step"] for line in read_log(tmp_path / "run")] == list(range(1, step + 2))
    assert train(tmp_path, dataset, "--resume", steps=step + 1) == 0
    assert "nothing is left to do" in capsys.readouterr().err


REFUSED = [
    ({"batch_size": 64}, [], "too few clips for one batch: 1x32x32 has 8 for a batch of 64"),
    ({"learning_rate": 1}, [], "unknown setting learning_rate: there are kind, model, objective, steps"),
    ({"optimizer": {"learning_rate": 1}}, [], "unknown setting optimizer.learning_rate: there are lr, warmup"),
    ({"steps": "many"}, [], "steps 'many': int is expected"),
    ({}, ["--set", "optimizer.lr"], "--set optimizer.lr: write A.B=C"),
    ({}, ["--set", "steps.more=1"], "--set steps.more=1: steps is 3, which holds no settings"),
    ({"kind": "gan"}, [], "kind 'gan': there are dit, tokens, vae"),
    ({"kind": "vae"}, [], "kind vae learns from the clips of a catalog: give --catalog URI"),
    ({"kind": "tokens"}, [], "kind 'tokens', but the dataset holds continuous latents"),
    ({"model": {"size": "M"}}, [], "model: unknown size 'M': debug, S, B, L, XL, XL128"),
    (
        {"model": {**CONFIG["model"], "patch": [1, 3, 3]}},
        [],
        "bucket 1x32x32 of the dataset and the model of the config",
    ),
    ({"validation": {"share": 1e-9, "least": 0}}, [], "validation.share 1e-09 holds out none of 2 sources"),
    ({"samples": {"every": 1}}, [], "samples.every needs the VAE that decodes the samples"),
    ({"vae": "nowhere"}, [], "vae: model 'nowhere'"),
    ({"text_model": "./nowhere"}, [], "text_model: model './nowhere'"),
    ({"text_model": ""}, [], "text_model: "),
    (
        {"model": {**CONFIG["model"], "mlp": 1e12}},
        [],
        "not enough memory: a smaller model or batch_size",
    ),
    ({"conditions": {"masks": {"first": 0.1}}}, [], "conditions.masks 'first': there are none, predict, backward"),
    ({"loader": {"text": "title"}}, [], "the dataset has no text 'title': text, text_short"),
]


@pytest.mark.parametrize(("changes", "more", "said"), REFUSED)
def test_what_cannot_work_is_one_line(changes, more, said, dataset, tmp_path, capsys):
    assert train(tmp_path, dataset, *more, **changes) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "run").exists()


def test_another_vae_than_that_of_the_latents_is_refused_naming_both(dataset, tmp_path, capsys):
    torch.manual_seed(1)
    vae_files.save(CausalVAE(sized("debug", channels=latents.Z, width=8, groups=4)), tmp_path / "vae")
    other = describe_coder(str(tmp_path / "vae")).fingerprint
    own = json.loads((dataset / "dataset.json").read_text())["contract"]["fingerprint"]
    assert train(tmp_path, dataset, vae=str(tmp_path / "vae")) == 2
    assert f"fingerprint {other[:12]}…, of the dataset {own[:12]}…" in capsys.readouterr().err


def test_a_checkpoint_of_latents_of_another_contract_is_refused_naming_both(dataset, tmp_path, capsys):
    assert train(tmp_path, dataset) == 0
    capsys.readouterr()
    other = made(tmp_path, "other", fingerprint="cd" * 32)
    assert train(tmp_path, other, "--resume") == 2
    (line,) = capsys.readouterr().err.splitlines()
    own = json.loads((dataset / "dataset.json").read_text())["contract"]["fingerprint"]
    assert f"is of another contract: fingerprint {own[:16]}… in the checkpoint, {'cd' * 8}… here" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "can't be read: No such file"),
        ("[1, 2]", "holds no settings by name, but [1, 2]"),
        ("a: b: c", "neither"),
    ],
)
def test_a_config_that_is_none_is_one_line(text, said, dataset, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    assert main(["train", str(path), "--dataset", str(dataset), "-o", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and said in line


def test_a_damaged_shard_ends_the_run_in_one_line_that_names_the_clip_or_is_skipped_and_counted(tmp_path, capsys):
    folder = made(tmp_path, "damaged")
    about = open_dataset(folder)
    columns = about.columns(["clip_id", "shard", "mean_offset"])
    clip, shard, offset = (column[0].as_py() for column in columns.values())
    with (Path(about.root) / about.shards[shard].path).open("rb+") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    assert train(tmp_path, folder, steps=8) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("clipmill: ")]
    assert clip in line and len(read_log(tmp_path / "run")) < 8
    arguments = ["train", written(tmp_path, steps=8), "--dataset", str(folder), "-o", str(tmp_path / "skipped")]
    assert main([*arguments, "--set", "loader.bad=skip"]) == 0
    replaced = [each for line in read_log(tmp_path / "skipped") for each in line.get("replaced", ())]
    assert (
        replaced and {each["clip_id"] for each in replaced} == {clip} and clip not in {each["by"] for each in replaced}
    )


@pytest.mark.parametrize("by", ["source", "clip"])
def test_what_is_held_out_is_never_trained_on(by, dataset):
    """Two epochs see every other clip and no held-out one; a source is held out whole."""
    whole = open_dataset(dataset)
    trained, held = split(whole, ValidationConfig(share=0.5, by=by, least=0))
    column = {"source": "source_id", "clip": "clip_id"}[by]
    ids = [set(each.columns([column])[column].to_pylist()) for each in (whole, trained, held)]
    assert ids[1] | ids[2] == ids[0] and not ids[1] & ids[2]
    config = TrainConfig.from_dict({**CONFIG, "batch_size": 2, "validation": {"share": 0.5, "by": by, "clips": 6}})
    data, loader, _ = training_data(dataset, config, Ranks())
    seen = {clip for _ in range(2 * loader.len_epoch) for clip in next(loader).clip_ids}
    loader.close()
    checked = [clip for batch in data.held_out for clip in batch.clip_ids]
    assert seen == set(trained.columns(["clip_id"])["clip_id"].to_pylist())
    assert set(checked) <= set(held.columns(["clip_id"])["clip_id"].to_pylist())
    assert len(checked) == len(set(checked)) >= 4


def test_shares_of_ranks_in_their_order_are_the_global_batch(dataset):
    """So that a clip's noise, which goes by its place in the global batch, is the same on any number of ranks."""
    config = TrainConfig.from_dict(CONFIG)
    loaders = [training_data(dataset, config, Ranks(rank, world))[1] for rank, world in ((0, 1), (0, 2), (1, 2))]
    for _ in range(6):
        whole, first, second = (next(loader) for loader in loaders)
        assert whole.clip_ids == first.clip_ids + second.clip_ids
        assert torch.equal(whole.latents["mean"], torch.cat([first.latents["mean"], second.latents["mean"]]))
    for loader in loaders:
        loader.close()


def test_ranks_share_the_clips_of_validation_among_them(dataset):
    config = TrainConfig.from_dict({**CONFIG, "validation": {"share": 0.5, "by": "clip", "clips": 8}})
    shares = [training_data(dataset, config, Ranks(rank, 2))[0] for rank in (0, 1)]
    sizes = [[(batch.bucket, len(batch.clip_ids)) for batch in data.held_out] for data in shares]
    assert sizes[0] == sizes[1]
    clips = [clip for data in shares for batch in data.held_out for clip in batch.clip_ids]
    assert len(clips) == len(set(clips)) > 0


def test_weights_and_biases_hears_every_step_if_asked(dataset, tmp_path, monkeypatch, capsys):
    """A stand-in for the package, which is not among those of the tests."""
    heard, made = [], {}

    class Run:
        def log(self, numbers, step):
            heard.append((step, numbers["loss"]))

    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train(tmp_path, dataset, wandb=True) == 2
    assert "the package is not installed: pip install wandb" in capsys.readouterr().err
    module = types.SimpleNamespace(init=lambda **options: made.update(options) or Run())
    monkeypatch.setitem(sys.modules, "wandb", module)
    assert train(tmp_path, dataset, wandb=True) == 0
    assert heard == [(line["step"], line["loss"]) for line in read_log(tmp_path / "run")] and len(heard) == 3
    assert made["config"]["steps"] == 3 and made["id"] == "run"
