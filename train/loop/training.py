"""The training loop of the transformers: batches in, a network's weights and their average out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from train.config.training import TrainConfig
from train.data.batch_sizes import batch_sizes
from train.data.batches import Batch, TrainingData
from train.data.conditions import Conditions
from train.devices.determinism import deterministic_kernels
from train.devices.mixed_precision import autocast, compute_dtype
from train.devices.parallel import (
    Ranks,
    copy_into,
    defer_grad_sync,
    full_states,
    load_optimizer_states,
    optimizer_states,
    parallelize,
)
from train.devices.throughput import measured_peak
from train.loop.feed import PreparedStep, StepFeed
from train.loop.network import build, prepare_blocks, start_from
from train.loop.tasks import task_for
from train.loop.validation import Validation
from train.optimization.ema import EMA
from train.optimization.optimizer import DivergedError, clip_gradient, learning_rate, make_optimizer, set_learning_rate
from train.run import run_folder
from train.run.checkpoints import Tensors
from train.run.lineage import BALANCED, RUN_ID, START, Ancestor, about_run, ancestor
from train.run.log import Console, Log, Sink

DrawSamples = Callable[[int, nn.Module], None]  # draws and writes samples of a step, with the averaged weights


class Training:
    """A run in `folder`, ready to start: from the beginning, or with `resume` from its last checkpoint.

    `extra` is written to RUN/model beside the weights. `learned_from` are the networks, besides the config's `start`,
    that the run learns from, such as a teacher (train/run/lineage.py). `stop` is asked in each step whether to end the
    run after it, with a checkpoint. `draw` is called on the first rank, or on all where weights are sharded.
    Raises ConfigError where the config contradicts itself, the dataset or the checkpoint.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        folder: str | Path,
        ranks: Ranks | None = None,
        *,
        resume: bool = False,
        extra: dict[str, Any] | None = None,
        learned_from: Sequence[Ancestor] = (),
        stop: Callable[[], bool] = lambda: False,
        draw: DrawSamples | None = None,
        sinks: Sequence[Sink] = (),
        quiet: bool = False,
        console: Console | None = None,
    ):
        self.config, self.data, self.ranks, self.stop, self.draw = config, data, ranks or Ranks(), stop, draw
        device = self.ranks.device
        self.sizes = batch_sizes(config, data.shapes, self.ranks.world, data.balance)
        self.network = build(config, data).to(device)
        self.task = task_for(config, self.network, data, device)
        self.folder = Path(folder)
        ancestors = [*learned_from, *([ancestor(config.start, START)] if config.start else [])]
        self.numbers = {
            "model": {"kind": config.kind, **self.network.settings.to_dict()},
            "contract": data.contract,
            "config": config.to_dict(),
            "identity": data.identity,
        }
        if self.ranks.first:
            run_folder.check_folder(self.folder, config.kind, resume)
            run_folder.lock(self.folder)
        self.ranks.wait()

        self.checkpoints = run_folder.open_checkpoints(self.folder, config.checkpoint.keep)
        if config.start is not None and not (resume and self.checkpoints.steps()):
            start_from(self.network, config.start)
        compiled = device.type == "cuda" if config.compile is None else config.compile
        maskless = config.text_attention == "maskless"
        prepare_blocks(self.network, compiled, config.activation_checkpointing, maskless)
        self.dtype = compute_dtype(config.dtype, device)
        self.module = parallelize(self.network, self.ranks, config.parallel, self.dtype)
        self.ema = EMA(self.network, config.ema)
        self.optimizer = make_optimizer(self.network, config.optimizer)
        self.conditions = Conditions(
            data,
            self.network.settings.conditions,
            config.seed,
            config.conditions.text_dropout,
            config.conditions.dropout,
            text=bool(self.network.settings.text_dim),
        )
        self.validation = Validation(self.task, self.conditions, data.held_out, self.ranks, config.validation.times)
        self.step = self._resume() if resume else 0
        self.loader_state = data.loader.state_dict()  # after the last step, while the next one is being prepared
        self.about = about_run(self.folder, ancestors, resumed=self.step > 0, identity=data.identity)
        self.extra = {**(extra or {}), RUN_ID: self.about[RUN_ID]}
        first = self.ranks.first
        if first:
            dataset = self.extra.get("dataset")
            balanced = {BALANCED: asdict(data.balance)} if data.balance is not None else {}
            run_folder.write_config(self.folder, {**config.to_dict(), "dataset": dataset, **balanced, **self.about})
        self.log = Log(self.folder, after=self.step if resume else None, sinks=tuple(sinks)) if first else None
        self.replaced: list[dict[str, Any]] = []  # samples of the last step that could not be read, of all ranks
        self.console = console or Console(config.kind, config.steps, quiet=quiet or not first)

    def run(self) -> None:
        """Trains until the last step, or until `stop`; in the end a checkpoint of that step is on disk."""
        with deterministic_kernels(self.config.deterministic):
            self._run()

    def _run(self) -> None:
        config, saved = self.config, self.step
        count = sum(parameter.numel() for parameter in self.network.parameters())
        peak = (config.peak_tflops or 0) * 1e12 or measured_peak(self.ranks.device, self.dtype)
        self.console.say(
            f"{config.kind} of {count:,} parameters on {self.ranks.world} x {self.ranks.device.type}, from step "
            f"{self.step:,} to {config.steps:,}, {self._said_sizes()} clips each; "
            f"{'given' if config.peak_tflops else 'measured'} peak {peak / 1e12:.3g} TFLOP/s"
        )
        feed, stopped = StepFeed(self.data.loader, self.conditions, self.task, self.ranks, config.accumulate), False
        try:
            while self.step < config.steps and not stopped:
                begin = time.perf_counter()
                prepared = feed.take(self.step, more=self.step + 1 < config.steps)
                waited = time.perf_counter() - begin
                numbers, stopped = self.train_step(prepared)
                self.step += 1
                self._report(prepared.batch, numbers, time.perf_counter() - begin, waited, peak)
                self._validate_and_draw(last=self.step == config.steps)
                if self.step % config.checkpoint.every == 0:
                    self.save()
                    saved = self.step
            if saved != self.step or self._lacks_model():
                self.save()
            self.checkpoints.wait()
            self.ranks.wait()
            if self.ranks.first:
                run_folder.unlock(self.folder)
        finally:
            feed.close()
            self.close()

    def train_step(self, prepared: PreparedStep) -> tuple[dict[str, float], bool]:
        """One optimizer step on this rank's share of a batch. Returns numbers for the log, and whether to stop."""
        config, batch = self.config, prepared.batch
        clips = self._clips(batch)
        rate = learning_rate(config.optimizer, self.step, config.steps)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(prepared)
        own = [losses.double().sum().item(), float(self.stop()), len(batch.skipped)]
        total, stop, skipped = self.ranks.sum(torch.tensor(own, dtype=torch.float64)).tolist()
        self.replaced = self._all_replaced(batch) if skipped else []
        if not math.isfinite(total):
            self._raise_diverged(batch, losses)
        norm = clip_gradient(self.network, config.optimizer.clip)
        if not math.isfinite(norm):
            raise DivergedError(
                f"step {self.step + 1}: the gradient's norm is {norm}, with a loss of {total / clips:.4g}; "
                "that step was not made"
            )
        self.optimizer.step()
        self.ema.update()
        self.loader_state = prepared.loader_state
        return {"loss": total / clips, "lr": rate, "grad_norm": norm}, stop > 0

    def autocast(self) -> torch.autocast:
        """Inside, matrix products are in the run's dtype. FSDP casts sharded weights itself."""
        sharded = isinstance(self.module, FSDPModule)
        return autocast(self.ranks.device, torch.float32 if sharded else self.dtype)

    def save(self) -> None:
        """Starts writing a checkpoint of this step, and then RUN/model. Every rank must call it."""
        groups = {
            "model": self._state(),
            "ema": self.ema.state_dict(),
            "optimizer": optimizer_states(self.network, self.optimizer),
        }
        self.checkpoints.wait()  # so that there are never two copies
        tensors = {name: full_states(each, self.ranks) for name, each in groups.items()}
        if not self.ranks.first:
            return
        extra, empty = {**self.extra, "step": self.step}, self.conditions.empty

        def then(copies: Tensors) -> None:
            run_folder.save_model(self.folder, self.network, copies, extra, empty)

        numbers = {**self.numbers, "step": self.step, "loader": self.loader_state}
        self.checkpoints.save(self.step, tensors, numbers, then=then, copied=True)

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None

    def _backward(self, prepared: PreparedStep) -> Tensor:
        """Adds up the gradient of the mean loss over micro-batches. Returns the clips' losses, (B,)."""
        losses = []
        for index, (part, drawn) in enumerate(prepared.parts, start=1):
            with defer_grad_sync(self.module, index < len(prepared.parts)):
                with self.autocast():
                    each = self.task.losses(self.module, part, drawn)  # (B / accumulate,)
                (each.mean() / len(prepared.parts)).backward()
            losses.append(each.detach())
        return torch.cat(losses)

    def _clips(self, batch: Batch) -> int:
        """Clips of the step over all ranks, of which the batch is this rank's share."""
        return len(batch.clip_ids) * self.ranks.world

    def _said_sizes(self) -> str:
        """How many clips a step has, by bucket where that differs."""
        if len(set(self.sizes.values())) == 1:
            return f"{next(iter(self.sizes.values())):,}"
        return ", ".join(f"{size:,} ({bucket})" for bucket, size in self.sizes.items())

    def _state(self) -> dict[str, Tensor]:
        """The network's parameters and buffers by name, not copied."""
        return dict(self.network.named_parameters()) | dict(self.network.named_buffers())

    def _lacks_model(self) -> bool:
        """Whether an earlier process ended after its last checkpoint but before RUN/model was written."""
        lacks = not (self.folder / run_folder.MODEL / "config.json").exists()
        return bool(self.ranks.sum(torch.tensor([float(lacks)])) > 0)

    def _resume(self) -> int:
        """Loads everything from the last checkpoint. Returns its step, 0 where there is none yet."""
        found = run_folder.last_checkpoint(self.checkpoints, self.numbers)
        if found is None:
            return 0
        place, step, tensors, numbers = found
        for group, here in (("model", self._state()), ("ema", self.ema.state_dict())):
            run_folder.check_tensors(place, tensors.get(group, {}), here)
            for name, tensor in here.items():
                copy_into(tensor, tensors[group][name])
        self.ema.updates = int(tensors["ema"]["ema.updates"])
        load_optimizer_states(self.network, self.optimizer, tensors.get("optimizer", {}))
        self.data.loader.load_state_dict(numbers["loader"])
        return step

    def _validate_and_draw(self, last: bool) -> None:
        """At their intervals and after the last step: validation and samples, with the averaged weights."""
        config = self.config
        if self.data.held_out and (last or self.step % config.validation.every == 0):
            with self.ema.applied():
                found = self.validation(self.module, self.autocast)
            if self.log is not None:
                self.log.write(self.step, validation=found)
            self.console.say(f"step {self.step:,}: validation loss {found['loss']:.4g}")
        if config.samples.every and (last or self.step % config.samples.every == 0):
            if self.draw is not None:
                with self.ema.applied(), torch.no_grad(), self.autocast():
                    self.draw(self.step, self.network)
            self.ranks.wait()

    def _report(self, batch: Batch, numbers: dict[str, float], seconds: float, waited: float, peak: float) -> None:
        """Logs the step. Its time is complete, since reading the loss waited for the device."""
        if self.log is None:
            return
        clips = self._clips(batch)
        shape = (clips, *next(iter(batch.latents.values())).shape[1:])
        tokens = self.task.tokens(shape) * clips
        empty = self.conditions.empty
        text = 0 if empty is None else max(len(empty), 0 if batch.text is None else batch.text.shape[1])
        flops = self.task.flops(shape, text)
        numbers = {
            **numbers,
            "step_s": round(seconds, 6),
            "data_s": round(waited, 6),
            "tokens_per_s": round(tokens / seconds, 1),
            "mfu": round(flops / seconds / (peak * self.ranks.world), 5),
        }
        skipped = {"skipped": len(self.replaced), "replaced": self.replaced} if self.replaced else {}
        self.log.write(self.step, **numbers, **skipped, epoch=batch.epoch, bucket=batch.bucket)
        shown = {name: numbers[name] for name in ("loss", "lr", "grad_norm", "tokens_per_s")}
        self.console.step(self.step, {**shown, "data wait": f"{waited / seconds:.0%}", "MFU": f"{numbers['mfu']:.1%}"})

    def _all_replaced(self, batch: Batch) -> list[dict[str, Any]]:
        """For the log: the samples of all ranks that could not be read, with their places and what took their place."""
        own = [{"place": each.place, "clip_id": each.clip_id, "by": each.by} for each in batch.skipped]
        return [each for rank in self.ranks.gathered(own) for each in rank]

    def _raise_diverged(self, batch: Batch, losses: Tensor) -> None:
        own = [name for name, loss in zip(batch.clip_ids, losses.tolist(), strict=True) if not math.isfinite(loss)]
        clips = [name for rank in self.ranks.gathered(own) for name in rank]
        raise DivergedError(
            f"step {self.step + 1}: the loss is not finite for {len(clips)} of {self._clips(batch)} clips "
            f"({', '.join(clips[:8])}{', …' if len(clips) > 8 else ''}); that step was not made"
        )
