"""The training loop learns, logs what it does, and refuses what does not fit in one line that names both sides."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from models.saved import transformer_files
from models.settings.validation import ConfigError
from models.transformers.dit import DiT
from tests.train.made_up import CHANNELS, DIM, data
from tests.train.runs import MODEL, config, losses, train, weights
from train.config.training import OptimizerConfig
from train.loop.training import Training
from train.objectives.objective import PUBLISHED
from train.optimization.optimizer import DivergedError, learning_rate
from train.run.log import read_log

ONE_BATCH = {"batch_size": 4, "count": 4, "shapes": {"1x32x32": (CHANNELS, 1, 4, 4)}}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "left"), [("dit", 0.3), ("tokens", 0.01)])
def test_one_batch_is_overfitted(kind, left, tmp_path):
    """The loss falls to a small share `left` of the first one, far below that on clips that were not in the batch."""
    chosen = config(
        kind=kind,
        model={**MODEL, "width": 96, "depth": 1},
        steps=300 if kind == "dit" else 60,
        conditions={"text_dropout": 0.0, "dropout": 0.0, "posterior": "mean"},
        optimizer={"lr": 3e-3, "warmup": 10, "schedule": "cosine"},
        checkpoint={"every": 1000},
    )
    training = Training(chosen, data(**ONE_BATCH, held_out=4, kind=kind), tmp_path / "run", quiet=True)
    training.run()
    found = losses(tmp_path / "run")
    assert sum(found[-20:]) / 20 < left * found[0]
    others = training.validation(training.module, training.autocast)["loss"]
    assert sum(found[-20:]) / 20 < 0.5 * others


def test_a_line_for_every_step_and_the_model_that_samples_are_drawn_from(tmp_path):
    chosen = config(steps=4, validation={"share": 0.1, "every": 2})
    extra = {"dataset": "somewhere", "vae": None}
    training = Training(chosen, data(4, held_out=4), tmp_path / "run", extra=extra, quiet=True)
    training.run()
    lines = read_log(tmp_path / "run")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert {*steps[0]} >= {"loss", "lr", "grad_norm", "step_s", "data_s", "tokens_per_s", "mfu", "epoch", "bucket"}
    assert all(0 < line["data_s"] < line["step_s"] and line["mfu"] > 0 for line in steps)
    assert steps[1]["tokens_per_s"] * steps[1]["step_s"] == pytest.approx(4 * 3 * 2 * 2, rel=1e-3)
    validations = [line["validation"] for line in lines if "validation" in line]
    assert len(validations) == 2 and len(validations[0]) == 11
    model, found = transformer_files.load(tmp_path / "run" / "model")
    assert isinstance(model, DiT) and found == {**extra, "step": 4, "run_id": training.about["run_id"]}
    average = training.ema.state_dict()
    assert all(torch.equal(value, average[name]) for name, value in model.named_parameters())
    (mean,) = (value for name, value in model.named_buffers() if name.endswith("mean"))
    assert torch.equal(mean, torch.tensor([5.5, 24.0]))
    empty = load_file(tmp_path / "run" / "model" / "empty_text.safetensors")["text"]
    assert empty.shape == (2, DIM) and float(empty[0, 0]) == 0.5
    assert json.loads((tmp_path / "run" / "config.json").read_text())["kind"] == "dit"


def test_validation_moves_with_the_weights_alone(tmp_path):
    """Two evaluations of the same weights are the same number, whatever was trained between them."""
    chosen = config(steps=2, validation={"share": 0.1}, optimizer={"lr": 0.0})
    training = Training(chosen, data(4, held_out=4), tmp_path / "run", quiet=True)
    before = training.validation(training.module, training.autocast)
    training.run()
    assert training.validation(training.module, training.autocast) == before
    expected = [f"{float(t):.3f}" for t in PUBLISHED["rectified_flow"].validation_times(10)]
    assert [name for name in before if name != "loss"] == expected


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"accumulate": 4, "activation_checkpointing": True}])
def test_how_a_batch_is_computed_changes_no_number_that_is_learned(options, tmp_path):
    train(tmp_path / "plain", steps=3)
    train(tmp_path / "other", steps=3, **options)
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    plain, other = weights(tmp_path / "plain", "ema"), weights(tmp_path / "other", "ema")
    assert all(torch.allclose(plain[name], other[name], atol=1e-4) for name in plain)


def test_bfloat16_leaves_the_weights_in_float32(tmp_path):
    training = train(tmp_path / "half", steps=3, dtype="bfloat16")
    assert {parameter.dtype for parameter in training.network.parameters()} == {torch.float32}
    train(tmp_path / "full", steps=3)
    half, full = losses(tmp_path / "half"), losses(tmp_path / "full")
    assert half != full and half == pytest.approx(full, rel=0.02)


def test_a_latent_that_is_no_number_ends_the_run_in_one_line_with_step_and_clip(tmp_path):
    with pytest.raises(DivergedError) as raised:
        train(tmp_path / "run", made={"bad": ("9x32x32-03",), "count": 4})
    line = str(raised.value)
    assert line.startswith("step 2: the loss is not finite for 1 of 4 clips (9x32x32-03)") and "\n" not in line
    assert [entry["step"] for entry in read_log(tmp_path / "run")] == [1]


def test_a_stop_is_a_checkpoint_of_the_step_in_hand(tmp_path):
    answers = iter([False, False, True])
    training = Training(config(), data(4), tmp_path / "run", stop=lambda: next(answers), quiet=True)
    training.run()
    assert training.step == 3 and training.checkpoints.latest()[0] == 3


def test_samples_are_drawn_with_the_averaged_weights(tmp_path):
    drawn = []

    def draw(step, network):
        drawn.append((step, torch.equal(network.patches.weight, training.ema.average["patches.weight"])))

    training = Training(config(steps=5, samples={"every": 2}), data(4), tmp_path / "run", draw=draw, quiet=True)
    training.run()
    assert drawn == [(2, True), (4, True), (5, True)]
    assert not torch.equal(training.network.patches.weight, training.ema.average["patches.weight"])


def test_the_learning_rate_rises_over_the_warm_up_and_falls_as_a_cosine():
    cosine = OptimizerConfig(lr=1.0, warmup=10, schedule="cosine", final=0.1)
    rates = [learning_rate(cosine, step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55) and rates[110] == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(OptimizerConfig(lr=1.0, warmup=0), 12345, 1) == 1.0


REFUSED = [
    ({"model": {**MODEL, "channels": 8}}, {}, "model.channels 8 in the config, 4 in the dataset's contract"),
    ({"model": {**MODEL, "text_dim": 768}}, {}, "model.text_dim 768 in the config, 6 in the dataset"),
    ({"model": {**MODEL, "conditions": ["hue"]}}, {}, "conditions hue in the config, in the dataset there are motion"),
    ({"model": {**MODEL, "patch": [1, 3, 3]}}, {}, r"bucket 1x32x32 .*1 x 4 x 4 don't fall into patches of 1 x 3 x 3"),
    ({"model": {**MODEL, "wide": 1}}, {}, "unknown setting wide: there are width"),
    ({"kind": "tokens"}, {"kind": "dit"}, "kind 'tokens', but the dataset holds continuous latents"),
    ({"kind": "dit"}, {"kind": "tokens"}, "kind 'dit', but the dataset holds tokens of 16 codes"),
    ({"objective": "magic"}, {}, "objective 'magic': there are ddpm"),
    ({"objective": {"path": "linear", "predicts": "v"}}, {}, "objective: unknown setting predicts: there are"),
    ({"conditions": {"masks": {"all": 0.5}}}, {}, "conditions.masks 'all': there are none, predict"),
    ({"conditions": {"masks": {"predict": 1.5}}}, {}, "conditions.masks.predict 1.5: a share from 0 to 1"),
    ({"batch_size": 5, "accumulate": 2}, {}, "batch_size 5 does not divide into 1 ranks x accumulate 2"),
]


@pytest.mark.parametrize(("changes", "made", "said"), REFUSED)
def test_what_contradicts_the_dataset_is_refused_in_one_line(changes, made, said, tmp_path):
    with pytest.raises(ConfigError, match=said) as raised:
        Training(config(**changes), data(4, **made), tmp_path / "run", quiet=True)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_folder_with_something_in_it_is_no_place_for_a_new_run(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match=f"{re.escape(str(tmp_path))} is not empty: --resume"):
        Training(config(), data(4), tmp_path, quiet=True)
    assert [each.name for each in tmp_path.iterdir()] == ["precious.txt"]


def test_mfu_counts_what_the_network_computes_and_three_passes_of_it(tmp_path):
    whole = Training(config(model=MODEL), data(4), tmp_path / "whole", quiet=True)
    less = Training(config(model={**MODEL, "mask_ratio": 0.5}), data(4), tmp_path / "less", quiet=True)
    shape = (4, CHANNELS, 3, 4, 4)
    assert whole.task.flops(shape, 5) == 3 * whole.network.flops(shape, 5)
    assert less.task.flops(shape, 5) == 3 * less.network.flops(shape, 5, kept=6) < 0.7 * whole.task.flops(shape, 5)
    assert whole.task.tokens(shape) == 3 * 2 * 2
