"""VAE training on clips in memory: every quantizer learns, and a resumed run is the uninterrupted one bit by bit."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator

import pytest
import torch

from models.saved import vae_files
from models.settings.validation import ConfigError
from tests.peak_memory import peak_bytes
from tests.torch_state import one_thread
from train.config.vae import VAETrainConfig
from train.optimization.optimizer import DivergedError
from train.run.log import read_log
from train.vae.training import VAETraining, build
from train.vae.windows import Windows, pixels

__all__ = ["one_thread"]

TINY = dict(size="debug", width=8, multipliers=[1, 1, 1, 2])
BOTTLENECKS = {
    "kl": {},
    "vq": {"quantizer": "vq", "quantizer_options": {"codes": 32}},
    "lfq": {"quantizer": "lfq"},
    "fsq": {"channels": 6, "quantizer": "fsq"},
}


class Drawn:
    """Clips of sliding squares: a new batch for each step, every third of images; or the `same` batch in each."""

    identity = "drawn"

    def __init__(self, same: bool = False):
        self.same = same

    def batches(self, step: int) -> Iterator[Windows]:
        while True:
            yield self.windows(0, 4, 5) if self.same else self.windows(step, 2, 1 if step % 3 == 2 else 5)
            step += 1

    def held_out(self) -> Iterator[Windows]:
        yield Windows(torch.empty(0, 5, 16, 16, 3, dtype=torch.uint8), [], {"broken": "no picture in it"})
        for number in range(2):
            yield self.windows(10_000 + number, 1, 5)

    def training_sample(self) -> Iterator[Windows]:
        for step in range(3):
            yield self.windows(step, 2, 5)

    def windows(self, seed: int, count: int, frames: int) -> Windows:
        generator = torch.Generator().manual_seed(seed)
        video = torch.randint(0, 256, (count, 1, 1, 1, 3), generator=generator, dtype=torch.uint8)
        video = video.repeat(1, frames, 16, 16, 1)
        colours = torch.randint(0, 256, (count, 3), generator=generator, dtype=torch.uint8)
        for clip in range(count):
            x, y = torch.randint(0, 8, (2,), generator=generator).tolist()
            for frame in range(frames):
                left = (x + frame) % 10
                video[clip, frame, y : y + 6, left : left + 6] = colours[clip]
        return Windows(video, [f"clip_{seed}_{clip}" for clip in range(count)])


def config(**changes) -> VAETrainConfig:
    given = {
        "kind": "vae",
        "model": {**TINY, **changes.pop("model", {})},
        "steps": 6,
        "batch_size": 2,
        "clips": {"buckets": ["5x16x16"]},
        "loss": {"pixels": "mse", "adversarial_start": 2},
        "discriminator": {"width": 4, "layers": 2},
        "optimizer": {"lr": 2e-3, "warmup": 2},
        "checkpoint": {"every": 3},
        **changes,
    }
    return VAETrainConfig.from_dict(given)


def trained(folder, settings: VAETrainConfig, **ways) -> VAETraining:
    training = VAETraining(settings, Drawn(), folder, quiet=True, **ways)
    training.run()
    return training


def weights(training: VAETraining) -> dict[str, torch.Tensor]:
    groups = {"vae": training.vae.state_dict(), "ema": training.ema.state_dict()}
    if training.critic is not None:
        groups["critic"] = training.critic.network.state_dict()
    return {f"{group}.{name}": value.clone() for group, each in groups.items() for name, value in each.items()}


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_every_weight_of_the_encoder_learns_through_every_bottleneck(tmp_path, bottleneck):
    settings = config(
        model=BOTTLENECKS[bottleneck],
        steps=16,
        loss={"pixels": "mse", "perceptual": "none", "adversarial": 0},
        optimizer={"lr": 2e-3, "warmup": 2},
        checkpoint={"every": 1000},
    )
    clips = Drawn(same=True)
    training = VAETraining(settings, clips, tmp_path, quiet=True)
    video = pixels(clips.windows(0, 4, 5).video, "cpu")
    training.vae.train()
    back, passed = training.vae(video)
    ((back - video).square().mean() + passed.loss * 1e-6).backward()
    parts = {name.split(".")[0] for name, _ in training.vae.named_parameters()}
    assert parts == {"encoder", "quant_conv", "post_quant_conv", "decoder", "shortcut_in", "shortcut_out"}
    for name, parameter in training.vae.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # One more number for each query alike changes no attention: keys need no bias and get no gradient for one.
        assert parameter.grad.abs().sum() > 0 or name.endswith("to_k.bias"), name
    before = {name: value.clone() for name, value in training.vae.encoder.state_dict().items()}
    training.run()
    assert all(
        (value != before[name]).any() or "to_k.bias" in name
        for name, value in training.vae.encoder.state_dict().items()
    )
    losses = [line["mse"] for line in read_log(tmp_path)]
    assert max(losses[-3:]) < 0.7 * losses[0]


def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path):
    whole = trained(tmp_path / "whole", config(model=BOTTLENECKS["vq"]))
    steps = iter([False, False, True])
    first = VAETraining(
        config(model=BOTTLENECKS["vq"]), Drawn(), tmp_path / "parts", quiet=True, stop=lambda: next(steps)
    )
    assert not first.run() and first.step == 3
    second = trained(tmp_path / "parts", config(model=BOTTLENECKS["vq"]), resume=True)
    assert second.step == 6
    there, here = weights(whole), weights(second)
    assert there.keys() == here.keys() and any(name.startswith("critic") for name in here)
    assert all(torch.equal(there[name], here[name]) for name in there)
    untimed = [
        [{k: v for k, v in line.items() if k not in ("seconds", "waited_s")} for line in read_log(tmp_path / each)]
        for each in ("whole", "parts")
    ]
    assert untimed[0] == untimed[1] and len(untimed[0]) == 6
    assert {"mse", "perceptual", "adversarial", "adversarial_ratio", "codebook", "discriminator"} <= untimed[0][
        -1
    ].keys()
    assert "adversarial" not in untimed[0][1]


@pytest.mark.parametrize("bottleneck", ["kl", "vq"])
def test_activation_checkpointing_changes_no_loss_and_no_gradient(tmp_path, bottleneck):
    settings = config(model=BOTTLENECKS[bottleneck], activation_checkpointing=True)
    plain, saving = (
        trained(tmp_path / "plain", config(model=BOTTLENECKS[bottleneck])),
        trained(tmp_path / "a", settings),
    )
    assert not any(level.checkpointing for level in plain.vae.encoder.levels)
    assert all(level.checkpointing for level in (*saving.vae.encoder.levels, *saving.vae.decoder.levels))
    for one, other in zip(read_log(plain.folder), read_log(saving.folder), strict=True):
        untimed = one.keys() - {"seconds", "waited_s", "windows"}
        assert {name: one[name] for name in untimed} == pytest.approx({name: other[name] for name in untimed}, rel=1e-4)
    there, here = weights(plain), weights(saving)
    assert all(torch.allclose(there[name].float(), here[name].float(), atol=1e-5) for name in there)
    resumed = trained(tmp_path / "a", config(model=BOTTLENECKS[bottleneck]), resume=True)  # it may be changed
    assert resumed.step == 6


def test_activation_checkpointing_takes_less_memory():
    def peak(on: bool) -> int:
        vae, _ = build(config(model={"encoder_blocks": 2, "decoder_blocks": 3}))
        clip = torch.zeros(1, 3, 9, 48, 48)
        vae.train().set_checkpointing(on)
        return peak_bytes(lambda: vae(clip)[0].square().mean().backward())

    assert peak(True) < 0.6 * peak(False)


def test_a_run_of_another_architecture_config_or_set_of_clips_is_not_gone_on_with(tmp_path):
    trained(tmp_path, config(steps=3))
    with pytest.raises(ConfigError, match=r"of another model: .*width 8 in the checkpoint, 16 here"):
        VAETraining(config(model={"width": 16}), Drawn(), tmp_path, resume=True, quiet=True)
    with pytest.raises(ConfigError, match=r"of another config: loss.kl: 1e-06 in the checkpoint, 0.1 here"):
        VAETraining(
            config(steps=3, loss={"pixels": "mse", "adversarial_start": 2, "kl": 0.1}),
            Drawn(),
            tmp_path,
            resume=True,
            quiet=True,
        )
    others = Drawn()
    others.identity = "others"
    with pytest.raises(ConfigError, match="of another dataset"):
        VAETraining(config(steps=3), others, tmp_path, resume=True, quiet=True)
    with pytest.raises(ConfigError, match="is not empty: --resume goes on"):
        VAETraining(config(steps=3), Drawn(), tmp_path, quiet=True)


def test_the_model_of_a_run_is_the_average_with_the_statistics_of_its_latents(tmp_path):
    training = trained(tmp_path, config())
    training.finish()
    vae = vae_files.load(tmp_path / "model")
    average = training.ema.state_dict()
    assert all(torch.equal(value, average[name]) for name, value in vae.named_parameters())
    assert any((value != dict(training.vae.named_parameters())[name]).any() for name, value in vae.named_parameters())
    mean, std = vae_files.statistics(tmp_path / "model")
    torch.manual_seed(0)
    with torch.no_grad():
        latents = torch.cat([vae.encode(pixels(w.video, "cpu")).sample() for w in Drawn().training_sample()])
    assert torch.allclose(torch.tensor(mean), latents.mean(dim=(0, 2, 3, 4)), atol=0.02)
    assert torch.allclose(torch.tensor(std), latents.std(dim=(0, 2, 3, 4)), atol=0.02)


def test_what_was_held_out_is_measured_clip_by_clip(tmp_path):
    training = trained(tmp_path, config(steps=2, validation={"every": 1, "share": 0.1}))
    found = training.measured()
    assert found.clip_ids == ["clip_10000_0", "clip_10001_0"] and found.failed == {"broken": "no picture in it"}
    assert len(found.psnr) == len(found.mean_colour_psnr) == len(found.ssim) == 2 and not found.lpips
    assert found.numbers()["lpips"] is None and found.numbers()["clips"] == 2
    assert torch.equal(found.originals[1], Drawn().windows(10_001, 1, 5).video[0])
    assert found.reconstructions[0].shape == (5, 16, 16, 3) and found.reconstructions[0].dtype == torch.uint8
    assert [line["step"] for line in read_log(tmp_path) if "validation" in line] == [1]


def test_the_greatest_seed_is_one(tmp_path):
    assert len(read_log(trained(tmp_path, config(steps=1, seed=2**32 - 1)).folder)) == 1


def test_a_run_that_another_process_trains_is_refused(tmp_path):
    with (tmp_path / ".lock").open("a") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="is being trained by another process"):
            trained(tmp_path, config(steps=1))


def test_a_step_whose_loss_is_no_number_is_not_made(tmp_path):
    training = VAETraining(config(), Drawn(), tmp_path, quiet=True)
    with torch.no_grad():
        training.vae.decoder.conv_out.bias.fill_(float("nan"))
    before = training.vae.encoder.conv_in.weight.clone()
    with pytest.raises(DivergedError, match=r"step 1: the loss is nan .* clip_0_0"):
        training.run()
    assert torch.equal(training.vae.encoder.conv_in.weight, before)


def test_a_run_begins_with_another_vae_if_told_to(tmp_path):
    first = trained(tmp_path / "first", config(steps=2))
    first.finish()
    again, said = build(config(start=str(tmp_path / "first" / "model"), seed=9))
    saved = vae_files.load(tmp_path / "first" / "model").state_dict()
    assert said == f"weights of {tmp_path / 'first' / 'model'}" and build(config())[1] == "random weights"
    assert all(torch.equal(value, saved[name]) for name, value in again.state_dict().items())
    with pytest.raises(ConfigError, match=r"start: .* is a VAE of other settings"):
        build(config(start=str(tmp_path / "first" / "model"), model={"width": 16}))
    with pytest.raises(ConfigError, match=r"start: a 2D VAE has no weights for a shortcut"):
        build(config(start=str(tmp_path / "none.safetensors")))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stepz": 3}, "unknown setting stepz: there are kind, model"),
        ({"clips": {"bucket": ["5x16x16"]}}, r"unknown setting clips\.bucket: there are select, buckets"),
        ({"clips": {"buckets": ["16x16x16"]}}, r"16x16x16: this VAE takes 1 \+ 4n frames of multiples of 8"),
        ({"clips": {"buckets": ["17x20x16"]}}, "17x20x16: this VAE takes"),
        ({"clips": {"buckets": ["big"]}}, "'big': FRAMESxHEIGHTxWIDTH is wanted"),
        ({"clips": {"buckets": []}}, "clips.buckets is empty"),
        ({"clips": {"image_share": 1.5, "buckets": ["5x16x16"]}}, "image_share 1.5: a share from 0 to 1"),
        ({"model": {"size": "huge"}}, "unknown VAE size 'huge'"),
        ({"model": {"quantizer": "fsq", "channels": 3}}, "model: FSQ has 6 levels"),
        ({"loss": {"perceptual": "lpips"}}, r"needs loss\.lpips"),
        ({"loss": {"perceptual": "lpips", "lpips": "no.pth", "backbone": "no.pth"}}, r"loss: no\.pth can't be read"),
        ({"clips": {"buckets": "5x16x16"}}, r'buckets .5x16x16.: a list is expected, such as \["17x256x256"\]'),
        ({"clips": {"fps": 1001, "buckets": ["5x16x16"]}}, "clips.fps 1001: at most 1000"),
        ({"clips": {"fps": float("inf"), "buckets": ["5x16x16"]}}, "clips.fps inf: a finite number above 0"),
        ({"seed": 2**32}, r"seed 4294967296: from 0 to below 2\*\*32"),
        ({"optimizer": {"clip": 0}}, "optimizer.clip 0: a finite number above 0"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr 'fast': float is expected"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        VAETraining(config(**changes), Drawn(), tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_config_comes_back_from_json(tmp_path):
    settings = config(clips={"buckets": ["5x16x16", "9x16x32"]})
    assert VAETrainConfig.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
