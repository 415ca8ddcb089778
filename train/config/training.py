"""What can be chosen about a training run, with units and defaults. No torch here: a config is read before anything."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from models.settings.validation import ConfigError, above_0, at_least, built, from_0_to_below, is_number, listed, one_of

Kind = Literal["dit", "tokens"]
MaskKind = Literal["none", "predict", "backward", "interpolate", "single", "spatial"]  # of train/objectives/masks.py
# What a resumed run may change: nothing that is learned depends on it, rounding aside.
FREE = (
    *("checkpoint", "samples", "wandb", "peak_tflops", "vae", "text_model"),
    *("parallel", "compile", "activation_checkpointing", "accumulate"),
    *("loader.threads", "loader.verify", "loader.root", "loader.cache", "loader.cache_gb"),
    *("validation.every", "validation.clips", "validation.times"),
)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. The rate rises from 0 over `warmup` steps, then stays, or falls as a cosine to `final` x lr."""

    lr: float = 1e-4
    warmup: int = 1000  # optimiser steps
    schedule: Literal["constant", "cosine"] = "constant"
    final: float = 0.1  # share of lr that a cosine ends at
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0  # of matrices; vectors (biases, norms) have none
    clip: float | None = 1.0  # greatest norm of the gradient of all weights; null: as it comes

    def __post_init__(self) -> None:
        listed(self, "betas")
        at_least(self, "optimizer", lr=0, warmup=0, final=0, weight_decay=0)
        for name in ("lr", "final", "weight_decay"):
            if math.isinf(getattr(self, name)):
                raise ConfigError(f"optimizer.{name} {getattr(self, name)!r}: a finite number is expected")
        if len(self.betas) != 2:
            raise ConfigError(f"optimizer.betas {list(self.betas)}: two are expected, such as [0.9, 0.99]")
        for beta in self.betas:
            from_0_to_below("optimizer.betas", beta, 1)
        above_0("optimizer.eps", self.eps)
        if self.clip is not None:
            above_0("optimizer.clip", self.clip)
        one_of("optimizer.schedule", self.schedule, ("constant", "cosine"))


@dataclass(frozen=True)
class ConditionConfig:
    """Shares from 0 to 1, drawn for each clip anew in each epoch."""

    text_dropout: float = 0.1  # captions replaced by the encoded empty prompt (classifier-free guidance)
    dropout: float = 0.1  # each of the other conditions made unknown, for itself
    masks: dict[MaskKind, float] = field(default_factory=dict)  # share of the clips by kind; the rest has none
    posterior: Literal["sample", "mean"] = "sample"  # latents drawn as mean + exp(logvar / 2) noise, or the mean

    def __post_init__(self) -> None:
        for name in ("text_dropout", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"conditions.{name} {getattr(self, name)!r}: a share from 0 to 1")
        for kind, share in self.masks.items():
            one_of("conditions.masks", kind, get_args(MaskKind))
            if not (is_number(share) and 0 <= share <= 1):
                raise ConfigError(f"conditions.masks.{kind} {share!r}: a share from 0 to 1")
        if sum(self.masks.values()) > 1 + 1e-9:
            raise ConfigError(f"conditions.masks {dict(self.masks)}: at most 1 together")
        one_of("conditions.posterior", self.posterior, ("sample", "mean"))


@dataclass(frozen=True)
class LoaderConfig:
    """As curate/loader takes them."""

    text: Any = None  # field of the caption, or [[field, share], ...]; null: "text" where the dataset has one
    mix: dict[str, float] | None = None  # bucket: share of the clips drawn; null: by their number and weights
    threads: int | None = None  # that read; null: 2, of a remote store 16
    verify: Literal["auto", "off", "first", "always"] = "auto"  # hashes of what is read
    bad: Literal["raise", "skip"] = "raise"  # what can't be read ends the run, or is replaced, logged and counted
    root: str | None = None  # where the shards lie, if not where the dataset says
    cache: str | None = None  # folder for remote shards
    cache_gb: float | None = None  # its limit, 10^9 bytes

    def __post_init__(self) -> None:
        one_of("loader.verify", self.verify, ("auto", "off", "first", "always"))
        one_of("loader.bad", self.bad, ("raise", "skip"))
        if self.threads is not None:
            at_least(self, "loader", threads=1)


@dataclass(frozen=True)
class ValidationConfig:
    """Loss of the averaged weights on held-out clips at fixed, equidistant times with fixed noise."""

    share: float = 0.0  # of the clips held out, never trained on, chosen by a hash; 0: no validation
    by: Literal["source", "clip"] = "source"  # what is held out whole
    every: int = 1000  # optimiser steps
    clips: int = 256  # at most, over all ranks
    times: int = 10

    def __post_init__(self) -> None:
        from_0_to_below("validation.share", self.share, 1)
        one_of("validation.by", self.by, ("source", "clip"))
        at_least(self, "validation", every=1, clips=1, times=1)


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 1000  # optimiser steps
    keep: int = 3  # the last ones; older ones are removed

    def __post_init__(self) -> None:
        at_least(self, "checkpoint", every=1, keep=1)


@dataclass(frozen=True)
class SamplesConfig:
    """Pictures of samples from the averaged weights, with the captions of held-out clips."""

    every: int = 0  # optimiser steps; 0: none
    count: int = 4
    steps: int = 50  # of the sampler
    guidance: float = 4.0

    def __post_init__(self) -> None:
        at_least(self, "samples", every=0, count=1, steps=1, guidance=0)


@dataclass(frozen=True)
class TrainConfig:
    """A run of `clipmill train` on encoded clips. Raises ConfigError for what can't be."""

    kind: Kind = "dit"  # dit: diffusion or flow on latents; tokens: next token on discrete latents
    model: dict[str, Any] = field(default_factory=lambda: {"size": "S"})  # a size, and settings that differ from it
    objective: str | dict[str, Any] = "rectified_flow"  # dit: a name in objective.py's PUBLISHED, or settings
    steps: int = 100_000  # of the optimiser
    batch_size: int = 256  # clips in one step, over all ranks
    accumulate: int = 1  # parts that a rank's share of a batch is computed in, one after another
    seed: int = 0  # of weights, order, noise, times, dropout
    ema: float = 0.9999  # decay of the averaged weights
    conditions: ConditionConfig = field(default_factory=ConditionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    wandb: bool = False  # log to Weights & Biases too, where it is installed
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products; auto: bfloat16 on a GPU
    parallel: Literal["ddp", "fsdp"] = "ddp"  # with torchrun: whole weights on each rank, or shared out (FSDP2)
    compile: bool | None = None  # each block by torch.compile; null: on a GPU
    activation_checkpointing: bool = (
        False  # blocks are computed again in the backward pass: less memory, a third slower
    )
    peak_tflops: float | None = None  # of one device, for MFU, 10^12 operations a second; null: measured at the start
    vae: str | None = None  # where the VAE of the latents lies, to decode samples; checked against the contract
    text_model: str | None = None  # where the text encoder lies; null: where the contract says

    def __post_init__(self) -> None:
        one_of("kind", self.kind, get_args(Kind))
        one_of("dtype", self.dtype, ("auto", "float32", "bfloat16"))
        one_of("parallel", self.parallel, ("ddp", "fsdp"))
        at_least(self, "", steps=1, batch_size=1, accumulate=1)
        from_0_to_below("seed", self.seed, 2**63, "2**63")
        if self.peak_tflops is not None and not self.peak_tflops > 0:
            raise ConfigError(f"peak_tflops {self.peak_tflops!r}: above 0")
        from_0_to_below("ema", self.ema, 1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """From JSON or YAML. Raises ConfigError, naming the keys there are, for one that there is not."""
        return built(cls, values, "")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def with_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A config's dict with `a.b=c` of a command line put in; c is JSON, or else a text. Raises ConfigError."""
    values = json.loads(json.dumps(values))
    for setting in settings:
        path, equals, text = setting.partition("=")
        *parents, last = path.split(".")
        if not equals or not last:
            raise ConfigError(f"--set {setting}: write A.B=C, such as optimizer.lr=0.0003")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {setting}: {parent} is {place!r}, which holds no settings")
        try:
            place[last] = json.loads(text)
        except ValueError:
            place[last] = text
    return values


def differences(saved: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What keeps a run of config `here` from going on from a checkpoint made with `saved`, one line each.

    `FREE` settings may differ, and `steps` where the learning rate doesn't depend on it.
    """
    found = []
    constant = here.get("optimizer", {}).get("schedule") == "constant"
    old, new = dict(_leaves(saved)), dict(_leaves(here))
    for name in sorted(old.keys() | new.keys()):
        free = any(name == each or name.startswith(f"{each}.") for each in FREE) or (name == "steps" and constant)
        if not free and old.get(name) != new.get(name):
            found.append(f"{name}: {json.dumps(old.get(name))} in the checkpoint, {json.dumps(new.get(name))} here")
    return found


def _leaves(values: Mapping[str, Any], before: str = ""):
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", list(value) if isinstance(value, tuple) else value
