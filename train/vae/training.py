"""The training loop of a VAE: windows of clips in, a folder with the averaged network out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.files import write_whole
from models.saved import vae_files
from models.settings.validation import ConfigError
from models.vae.causal_vae import CausalVAE
from models.vae.chunks import choose_kernels_by_time
from models.vae.from_2d import load_2d
from models.vae.layers.quantizers import GaussianKL
from train.config.vae import VAETrainConfig
from train.devices.mixed_precision import autocast, compute_dtype
from train.optimization.ema import EMA
from train.optimization.optimizer import DivergedError, clip_gradient, learning_rate, make_optimizer, set_learning_rate
from train.run import run_folder
from train.run.checkpoints import Tensors
from train.run.lineage import MODELS, START, about_run, ancestor, models_of
from train.run.log import Console, Log
from train.vae.losses.discriminator import PatchDiscriminator, discriminator_loss
from train.vae.losses.losses import PairDistance, VAELosses, perceptual_term
from train.vae.measures import Measured, latent_statistics, measure
from train.vae.windows import Clips, Windows, pixels


@dataclass
class Critic:
    """The discriminator and its optimizer."""

    network: PatchDiscriminator
    optimizer: torch.optim.Optimizer


class VAETraining:
    """A run in `folder`, ready to start: from the beginning, or with `resume` from its last checkpoint.

    `stop` is asked after each step whether to end the run, with a checkpoint. `about` goes to config.json, beside what
    the run itself records there. Raises ConfigError where the config
    contradicts itself or the checkpoint.
    """

    def __init__(
        self,
        config: VAETrainConfig,
        clips: Clips,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        resume: bool = False,
        stop: Callable[[], bool] = lambda: False,
        quiet: bool = False,
        console: Console | None = None,
        about: dict[str, Any] | None = None,
    ):
        self.config, self.clips, self.folder, self.stop = config, clips, Path(folder), stop
        self.device = torch.device(device)
        run_folder.check_folder(self.folder, config.kind, resume)
        self.vae, self.initial = build(config)
        self.vae.to(self.device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs lack it
        self.vae.set_checkpointing(config.activation_checkpointing)
        choose_kernels_by_time(self.device)
        try:
            self.perceptual, self.perceptual_name = perceptual_term(config.loss, self.device)
        except ValueError as error:
            raise ConfigError(f"loss: {error}") from error
        discrete = not isinstance(self.vae.quantizer, GaussianKL)
        self.losses = VAELosses(config.loss, discrete, self.perceptual)
        self.ema = EMA(self.vae, config.ema)
        self.optimizer = make_optimizer(self.vae, config.optimizer)
        self.critic = self._critic()
        self.dtype = compute_dtype(config.dtype, self.device)
        self.numbers = {
            "model": {"kind": "vae", **self.vae.settings.to_dict()},
            "config": config.to_dict(),
            "identity": clips.identity,
        }
        run_folder.lock(self.folder)
        self.checkpoints = run_folder.open_checkpoints(self.folder, config.checkpoint.keep)
        self.step = self._resume() if resume else 0
        ancestors = [ancestor(config.start, START)] if config.start else []
        resumed = self.step > 0
        self.about = about_run(self.folder, ancestors, resumed, identity=clips.identity, **(about or {}))
        run_folder.write_config(self.folder, {**config.to_dict(), **self.about})
        self.log = Log(self.folder, after=self.step if resume else None)
        self.console = console or Console("vae", config.steps, quiet=quiet)

    def run(self) -> bool:
        """Trains until the last step, or until `stop`; in the end a checkpoint of that step is on disk. Returns whether
        the last step was made.
        """
        config, saved, stopped = self.config, self.step, False
        count = sum(parameter.numel() for parameter in self.vae.parameters())
        self.console.say(
            f"VAE of {count:,} parameters on {self.device.type}, from step {self.step:,} to {config.steps:,}, "
            f"{config.batch_size} windows each; {self.initial}; perceptual term: {self.perceptual_name}"
        )
        try:
            with closing(self.clips.batches(self.step)) as batches:
                while self.step < config.steps and not stopped:
                    begin = time.perf_counter()
                    batch = next(batches)
                    waited = time.perf_counter() - begin
                    numbers = self.train_step(batch)
                    self.step += 1
                    self._report(batch, numbers, time.perf_counter() - begin, waited)
                    stopped = self.stop()
                    every = config.validation.every
                    if every and self.step % every == 0 and self.step < config.steps:
                        self.log.write(self.step, validation=self.measured().numbers())
                    if self.step % config.checkpoint.every == 0:
                        self.save()
                        saved = self.step
            if saved != self.step:
                self.save()
            self.checkpoints.wait()
        finally:
            self.log.close()
        return self.step >= config.steps

    def train_step(self, batch: Windows) -> dict[str, float]:
        """One step of the VAE's optimizer, and of the discriminator's once it takes part. Gives numbers for the log."""
        config = self.config
        rate = learning_rate(config.optimizer, self.step, config.steps)
        set_learning_rate(self.optimizer, rate)
        # Noise and replaced codes of a codebook depend on the step alone, so that a resumed run repeats them.
        torch.manual_seed((config.seed << 32) + self.step)
        video = pixels(batch.video, self.device)
        critic = self.critic if self.step >= config.loss.adversarial_start else None
        if critic is not None:
            critic.network.requires_grad_(False)
        self.vae.train()
        with self.autocast():
            back, quantized = self.vae(video)
            last, discriminator = self.vae.decoder.conv_out.weight, None if critic is None else critic.network
            total, terms = self.losses(video, back, quantized, last, discriminator)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = clip_gradient(self.vae, config.optimizer.clip)
        value = float(total.detach())
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise DivergedError(
                f"step {self.step + 1}: the loss is {value:.4g} and the gradient's norm {norm:.4g} on "
                f"{', '.join(batch.clip_ids[:8])}; that step was not made: a lower optimizer.lr may help"
            )
        self.optimizer.step()
        self.ema.update()
        if critic is not None:
            terms |= self._critic_step(critic, video, back.detach())
        return {"loss": value, **terms, "lr": rate, "grad_norm": norm}

    def measured(self) -> Measured:
        """Measures the averaged VAE on the held-out clips."""
        with self.ema.applied(), self.autocast():
            return measure(self.vae, self.clips.held_out(), self.device, self._lpips())

    def finish(self) -> None:
        """Writes RUN/model: the averaged VAE with the statistics of its latents over training clips."""
        with self.ema.applied(), self.autocast():
            mean, std = latent_statistics(self.vae, self.clips.training_sample(), self.device)
            made = {**models_of(self.folder), vae_files.fingerprint(self.vae.float()): self.step}
            # First: latents of a model that a later one has replaced are still known to be of this run.
            write_whole(self.folder / MODELS, json.dumps(made, indent=2) + "\n")
            vae_files.save(self.vae, self.folder / run_folder.MODEL, latents_mean=mean, latents_std=std)

    def autocast(self) -> torch.autocast:
        return autocast(self.device, self.dtype)

    def save(self) -> None:
        """Starts writing a checkpoint of this step."""
        groups: Tensors = {
            "model": self.vae.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": _optimizer_tensors(self.optimizer),
        }
        if self.critic is not None:
            groups["discriminator"] = self.critic.network.state_dict()
            groups["discriminator_optimizer"] = _optimizer_tensors(self.critic.optimizer)
        self.checkpoints.save(self.step, groups, {**self.numbers, "step": self.step})

    def _critic(self) -> Critic | None:
        """None where no step of the run reaches `adversarial_start`."""
        config = self.config
        if not config.loss.adversarial or config.loss.adversarial_start >= config.steps:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 1)
            made = PatchDiscriminator(config.discriminator.width, config.discriminator.layers).to(self.device)
        rate = config.optimizer.lr if config.discriminator.lr is None else config.discriminator.lr
        return Critic(made, torch.optim.AdamW(made.parameters(), lr=rate, betas=(0.5, 0.9), weight_decay=0.0))

    def _critic_step(self, critic: Critic, video: Tensor, back: Tensor) -> dict[str, float]:
        """One step of the discriminator on originals and reconstructions. Returns its loss for the log."""
        critic.network.requires_grad_(True)
        with self.autocast():
            loss = discriminator_loss(critic.network(video).float(), critic.network(back).float())
        critic.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        critic.optimizer.step()
        return {"discriminator": float(loss.detach())}

    def _lpips(self) -> PairDistance | None:
        return self.perceptual if self.config.loss.perceptual == "lpips" else None

    def _resume(self) -> int:
        """Loads everything from the last checkpoint. Returns its step, 0 where there is none yet."""
        found = run_folder.last_checkpoint(self.checkpoints, self.numbers)
        if found is None:
            return 0
        place, step, tensors, _ = found
        run_folder.check_tensors(place, tensors["model"], self.vae.state_dict())
        self.vae.load_state_dict(tensors["model"])
        self.ema.load_state_dict(tensors["ema"])
        _load_optimizer(self.optimizer, tensors["optimizer"])
        if self.critic is not None:
            self.critic.network.load_state_dict(tensors["discriminator"])
            _load_optimizer(self.critic.optimizer, tensors["discriminator_optimizer"])
        return step

    def _report(self, batch: Windows, numbers: dict[str, float], seconds: float, waited: float) -> None:
        _, frames, height, width, _ = batch.video.shape
        windows = f"{len(batch.video)}x{frames}x{height}x{width}"
        for clip, reason in batch.failed.items():
            self.console.say(f"clip {clip} could not be decoded, the step goes on without it: {reason}")
        more = {"failed": sorted(batch.failed)} if batch.failed else {}
        self.log.write(
            self.step, **numbers, windows=windows, seconds=round(seconds, 4), waited_s=round(waited, 4), **more
        )
        self.console.step(self.step, {name: numbers[name] for name in ("loss", "lr", "grad_norm")})


def build(config: VAETrainConfig) -> tuple[CausalVAE, str]:
    """The VAE with weights drawn by the seed, or with those that `start` names; and a description of them. Raises
    ConfigError.
    """
    settings = config.settings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            vae = CausalVAE(settings)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model: {error}") from error
    if config.start is None:
        return vae, "random weights"
    try:
        if not Path(config.start).is_dir():
            left = load_2d(vae, config.start)
            return vae, f"weights of {config.start}" + (f", but random {', '.join(left)}" if left else "")
        found = vae_files.load(config.start)
        if found.settings != settings:
            raise ValueError(f"{config.start} is a VAE of other settings: {found.settings.to_dict()}")
        vae.load_state_dict(found.state_dict())
    except ValueError as error:
        raise ConfigError(f"start: {error}") from error
    return vae, f"weights of {config.start}"


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's states of each parameter, by its number: "3.exp_avg"."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, each in state.items() for name, value in each.items()}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
