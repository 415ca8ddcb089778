"""The training loop: batches in, a network's weights and their average out. Every step is here, in order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.settings.validation import ConfigError
from train.config.training import OptimizerConfig, TrainConfig
from train.data.batches import Batch, Conditions, TrainingData, moved, parts
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
from train.loop.network import build, prepare_blocks
from train.loop.tasks import task_for
from train.loop.validation import Validation
from train.optimization.ema import EMA
from train.run import run_folder
from train.run.log import Console, Log, Sink

Draw = Callable[[int, nn.Module], None]  # makes samples with the averaged weights, for a step


class DivergedError(RuntimeError):
    """The loss or the gradient is no number any more: one line with the step and, where known, the clips."""


class Training:
    """A run in `folder`, ready to go: from its beginning, or with `resume` from its last checkpoint.

    `extra` goes into RUN/model beside the weights. `stop` is asked in each step whether it is the last, with a
    checkpoint. `draw` is for the first rank, or for all where weights are shared out.
    Raises ConfigError for what contradicts itself, the dataset or the checkpoint.
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
        stop: Callable[[], bool] = lambda: False,
        draw: Draw | None = None,
        sinks: Sequence[Sink] = (),
        quiet: bool = False,
        console: Console | None = None,
    ):
        self.config, self.data, self.ranks, self.stop, self.draw = config, data, ranks or Ranks(), stop, draw
        self.extra, self.sinks, device = extra or {}, tuple(sinks), self.ranks.device
        self.share = config.batch_size // self.ranks.world  # clips of a step on this rank
        if config.batch_size % (self.ranks.world * config.accumulate):
            raise ConfigError(
                f"batch_size {config.batch_size} does not divide into {self.ranks.world} ranks x accumulate "
                f"{config.accumulate}"
            )
        self.network = build(config, data).to(device)
        self.task = task_for(config, self.network, data, device)
        self.folder = Path(folder)
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

        compiled = device.type == "cuda" if config.compile is None else config.compile
        prepare_blocks(self.network, compiled, config.activation_checkpointing)
        half = config.dtype == "bfloat16" or (config.dtype == "auto" and device.type == "cuda")
        self.dtype = torch.bfloat16 if half else torch.float32
        self.module = parallelize(self.network, self.ranks, config.parallel, self.dtype)
        self.ema = EMA(self.network, config.ema)
        self.optimizer = optimizer_for(self.network, config.optimizer)

        settings, conditions = self.network.settings, config.conditions
        self.conditions = Conditions(
            data,
            settings.conditions,
            config.seed,
            conditions.text_dropout,
            conditions.dropout,
            text=bool(settings.text_dim),
        )
        self.validation = Validation(self.task, self.conditions, data.held_out, self.ranks, config.validation.times)
        self.checkpoints = run_folder.open_checkpoints(self.folder, config.checkpoint.keep)
        self.step = self._resumed() if resume else 0
        first = self.ranks.first
        if first:
            run_folder.write_config(self.folder, {**config.to_dict(), "dataset": self.extra.get("dataset")})
        self.log = Log(self.folder, after=self.step if resume else None, sinks=self.sinks) if first else None
        self.console = console or Console(config.kind, config.steps, quiet=quiet or not first)

    def run(self) -> None:
        """Until the last step, or until `stop`; a checkpoint is there in the end."""
        config, saved = self.config, self.step
        count = sum(parameter.numel() for parameter in self.network.parameters())
        peak = (config.peak_tflops or 0) * 1e12 or measured_peak(self.ranks.device, self.dtype)
        self.console.say(
            f"{config.kind} of {count:,} parameters on {self.ranks.world} x {self.ranks.device.type}, from step "
            f"{self.step:,} to {config.steps:,}, {config.batch_size} clips each; "
            f"{'given' if config.peak_tflops else 'measured'} peak {peak / 1e12:.3g} TFLOP/s"
        )
        batches = iter(self.data.loader)
        stopped = False
        try:
            while self.step < config.steps and not stopped:
                begin = time.perf_counter()
                batch: Batch = next(batches)
                waited = time.perf_counter() - begin
                batch = moved(batch, self.ranks.device)
                numbers, stopped = self.train_step(batch)
                self.step += 1
                self._say(batch, numbers, time.perf_counter() - begin, waited, peak)
                self._at_intervals(last=self.step == config.steps)
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
            self.close()

    def train_step(self, batch: Batch) -> tuple[dict[str, float], bool]:
        """One step of the optimiser on this rank's share of a batch: (numbers for the log, whether to stop)."""
        config, count = self.config, len(batch.clip_ids)
        rate = learning_rate(config.optimizer, self.step, config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        condition, losses = self.conditions(batch), []
        pieces = parts(batch, condition, config.accumulate)
        first, size = self.ranks.rank * self.share, count // config.accumulate  # places in the global batch
        for index, part in enumerate(pieces):
            places = range(first + index * size, first + (index + 1) * size)
            with defer_grad_sync(self.module, index < len(pieces) - 1):
                with self.precision():
                    each = self.task.losses(self.module, part, self.step, places)  # (B,)
                (each.mean() / len(pieces)).backward()
            losses.append(each.detach())
        losses = torch.cat(losses)
        sums = torch.tensor([losses.double().sum().item(), float(self.stop())], dtype=torch.float64)
        total, stop = self.ranks.sum(sums).tolist()
        if not math.isfinite(total):
            self._diverged(batch, losses)
        norm = gradient_norm(self.network, config.optimizer.clip)
        if not math.isfinite(norm):
            raise DivergedError(
                f"step {self.step + 1}: the gradient's norm is {norm}, with a loss of {total / config.batch_size:.4g}; "
                "that step was not made"
            )
        self.optimizer.step()
        self.ema.update()
        return {"loss": total / config.batch_size, "lr": rate, "grad_norm": norm}, stop > 0

    def precision(self) -> AbstractContextManager:
        """Matrix products in bfloat16, if so; shared-out weights come in it by themselves."""
        shared = self.ranks.world > 1 and self.config.parallel == "fsdp"
        half = self.dtype == torch.bfloat16 and not shared
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=half)

    def save(self) -> None:
        """A checkpoint of this step, and RUN/model; every rank must ask. Returns while they are being written."""
        state = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        groups = {"model": state, "ema": self.ema.state_dict(), "optimizer": self._optimizer_states()}
        tensors = {name: full_states(each, self.ranks) for name, each in groups.items()}
        if not self.ranks.first:
            return
        extra, empty = {**self.extra, "step": self.step}, self.conditions.empty

        def then(copies: dict[str, dict[str, Tensor]]) -> None:
            run_folder.save_model(self.folder, self.network, copies, extra, empty)

        numbers = {**self.numbers, "step": self.step, "loader": self.data.loader.state_dict()}
        self.checkpoints.save(self.step, tensors, numbers, then=then)

    def _lacks_model(self) -> bool:
        """Whether the process before was ended after its last checkpoint and before its model was there."""
        return self.ranks.sum(torch.tensor([float(not (self.folder / run_folder.MODEL / "config.json").exists())])) > 0

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None

    def _resumed(self) -> int:
        """Everything from the last checkpoint; its step, 0 where there is none yet."""
        found = run_folder.last_checkpoint(self.checkpoints, self.numbers)
        if found is None:
            return 0
        place, step, tensors, numbers = found
        state = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        for group, here in (("model", state), ("ema", self.ema.state_dict())):
            run_folder.check_tensors(place, tensors.get(group, {}), here)
            for name, tensor in here.items():
                copy_into(tensor, tensors[group][name])
        self.ema.updates = int(tensors["ema"]["ema.updates"])
        load_optimizer_states(self.network, self.optimizer, tensors.get("optimizer", {}))
        self.data.loader.load_state_dict(numbers["loader"])
        return step

    def _optimizer_states(self) -> dict[str, Tensor]:
        return optimizer_states(self.network, self.optimizer)

    def _at_intervals(self, last: bool) -> None:
        """Validation and samples, with the averaged weights."""
        config = self.config
        if self.data.held_out and (last or self.step % config.validation.every == 0):
            with self.ema.applied():
                found = self.validation(self.module, self.precision)
            if self.log is not None:
                self.log.write(self.step, validation=found)
            self.console.say(f"step {self.step:,}: validation loss {found['loss']:.4g}")
        if config.samples.every and (last or self.step % config.samples.every == 0):
            if self.draw is not None:
                with self.ema.applied(), torch.no_grad(), self.precision():
                    self.draw(self.step, self.network)
            self.ranks.wait()

    def _say(self, batch: Batch, numbers: dict[str, float], seconds: float, waited: float, peak: float) -> None:
        """The step's line. Its times are whole: the loss was waited for."""
        if self.log is None:
            return
        shape = (self.config.batch_size, *next(iter(batch.latents.values())).shape[1:])
        tokens = self.task.tokens(shape) * self.config.batch_size
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
        skipped = {"skipped": count} if (count := getattr(self.data.loader, "skipped", 0)) else {}
        self.log.write(self.step, **numbers, **skipped, epoch=batch.epoch, bucket=batch.bucket)
        shown = {name: numbers[name] for name in ("loss", "lr", "grad_norm", "tokens_per_s")}
        self.console.step(self.step, {**shown, "data wait": f"{waited / seconds:.0%}", "MFU": f"{numbers['mfu']:.1%}"})

    def _diverged(self, batch: Batch, losses: Tensor) -> None:
        wrong = [name for name, loss in zip(batch.clip_ids, losses.tolist(), strict=True) if not math.isfinite(loss)]
        wrong = [name for rank in self.ranks.gathered(wrong) for name in rank]
        raise DivergedError(
            f"step {self.step + 1}: the loss is not finite for {len(wrong)} of {self.config.batch_size} clips "
            f"({', '.join(wrong[:8])}{', …' if len(wrong) > 8 else ''}); that step was not made"
        )


def optimizer_for(network: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Matrices decay, vectors do not. Not fused on CPUs: resumed runs were no longer the same bit by bit with it."""
    parameters = list(network.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Of the step with that number, counted from 0, of all `steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    way = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    return config.lr * (config.final + (1 - config.final) * (1 + math.cos(math.pi * way)) / 2)


def gradient_norm(network: nn.Module, clip: float | None) -> float:
    """Of all weights together, as it was before it was clipped."""
    norm = nn.utils.clip_grad_norm_(network.parameters(), math.inf if clip is None else clip)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
