"""The config of a transformer's training run: every setting with its unit and default. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from models.settings.validation import (
    CheckedSettings,
    ConfigError,
    above_0,
    at_least,
    finite,
    from_0_to_below,
    is_number,
    shares,
)

Kind = Literal["dit", "tokens"]
MaskKind = Literal["none", "predict", "backward", "interpolate", "single", "spatial"]  # of train/objectives/masks.py


@dataclass(frozen=True)
class OptimizerConfig(CheckedSettings):
    """AdamW. The learning rate rises from 0 over `warmup` steps, then stays, or falls as a cosine to `final` x lr."""

    lr: float = 1e-4
    warmup: int = 1000  # optimizer steps
    schedule: Literal["constant", "cosine"] = "constant"
    final: float = 0.1  # share of lr that a cosine ends at
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0  # of matrices; vectors (biases, norms) have none
    clip: float | None = 1.0  # greatest norm of the gradient of all weights; null: no clipping

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, lr=0, warmup=0, final=0, weight_decay=0)
        finite(self, "lr", "final", "weight_decay")
        from_0_to_below(self, 1, "betas")
        above_0(self, "eps", "clip")


@dataclass(frozen=True)
class ConditionConfig(CheckedSettings):
    """How often conditions are dropped and latents given. Shares from 0 to 1; each clip is drawn anew in each epoch."""

    text_dropout: float = 0.1  # captions replaced by the encoded empty prompt (classifier-free guidance)
    dropout: float = 0.1  # each of the other conditions made unknown, independently
    masks: dict[MaskKind, float] = field(default_factory=dict)  # share of the clips by kind of mask; the rest has none
    posterior: Literal["sample", "mean"] = "sample"  # latents drawn as mean + exp(logvar / 2) noise, or the mean

    def __post_init__(self) -> None:
        super().__post_init__()
        shares(self, "text_dropout", "dropout")
        for kind, share in self.masks.items():
            if kind not in get_args(MaskKind):
                raise ConfigError(f"masks {kind!r}: there are {', '.join(get_args(MaskKind))}")
            if not (is_number(share) and 0 <= share <= 1):
                raise ConfigError(f"masks.{kind} {share!r}: a share from 0 to 1")
        if sum(self.masks.values()) > 1 + 1e-9:
            raise ConfigError(f"masks {dict(self.masks)}: at most 1 together")


@dataclass(frozen=True)
class LoaderConfig(CheckedSettings):
    """Settings of the loader, as curate/loader takes them."""

    text: Any = None  # field of the caption, or [[field, share], ...]; null: "text" where the dataset has one
    mix: dict[str, float] | None = None  # share of the clips drawn, by bucket; null: by their number and weights
    threads: int | None = None  # reader threads; null: 2, for a remote store 16
    verify: Literal["auto", "off", "first", "always"] = "auto"  # hashes of what is read
    bad: Literal["raise", "skip"] = "raise"  # an unreadable sample ends the run, or is replaced, logged and counted
    root: str | None = None  # where the shards lie, if not where the dataset says
    cache: str | None = None  # folder for remote shards
    cache_gb: float | None = None  # size limit of the cache, 10^9 bytes

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, threads=1)


@dataclass(frozen=True)
class ValidationConfig(CheckedSettings):
    """Loss of the averaged weights on held-out clips at fixed, equidistant times with fixed noise."""

    share: float = 0.0  # of the clips, held out and never trained on, chosen by a hash; 0: no validation
    least: int = 8  # sources (or clips) held out, where the share gives fewer; never more than half of them
    by: Literal["source", "clip"] = "source"  # the unit that is held out as a whole
    every: int = 1000  # optimizer steps
    clips: int = 256  # at most, over all ranks
    times: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        from_0_to_below(self, 1, "share")
        at_least(self, least=0, every=1, clips=1, times=1)


@dataclass(frozen=True)
class CheckpointConfig(CheckedSettings):
    """When checkpoints are written, and how many are kept."""

    every: int = 1000  # optimizer steps
    keep: int = 3  # the last ones; older ones are removed

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, every=1, keep=1)


@dataclass(frozen=True)
class SampleSheetConfig(CheckedSettings):
    """Pictures of samples from the averaged weights, with the captions of held-out clips."""

    every: int = 0  # optimizer steps; 0: none
    count: int = 4
    steps: int = 50  # of the sampler
    guidance: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, every=0, count=1, steps=1, guidance=0)


@dataclass(frozen=True)
class BalanceConfig(CheckedSettings):
    """What a step may take with `batch_size: balanced`: one of the two is given."""

    tokens: int | None = None  # most tokens of the network in a step, over all ranks
    seconds: float | None = None  # of a step, the exchange between ranks not counted

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, tokens=1)
        above_0(self, "seconds")
        if self.tokens is not None and self.seconds is not None:
            raise ConfigError("seconds and balance.tokens: give one of them")


@dataclass(frozen=True)
class TrainConfig(CheckedSettings):
    """A run of `clipmill train` on encoded clips. Raises ConfigError for invalid settings."""

    kind: Kind = "dit"  # dit: diffusion or flow on latents; tokens: next token on discrete latents
    model: dict[str, Any] = field(default_factory=lambda: {"size": "S"})  # a size, and settings that differ from it
    objective: str | dict[str, Any] = "rectified_flow"  # dit: a name in objective.py's PUBLISHED, or settings
    steps: int = 100_000  # of the optimizer
    # Clips in one step, over all ranks: a number, or one for each bucket; "balanced": so that steps take alike long.
    batch_size: int | dict[str, int] | Literal["balanced"] = 256
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    accumulate: int = 1  # micro-batches per step: gradients are accumulated over that many parts of a batch
    seed: int = 0  # of weights, order, noise, times, dropout
    start: str | None = None  # a run, or a folder of its model, whose averaged weights are the initial ones
    ema: float = 0.9999  # decay of the averaged weights
    conditions: ConditionConfig = field(default_factory=ConditionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    samples: SampleSheetConfig = field(default_factory=SampleSheetConfig)
    wandb: bool = False  # log to Weights & Biases too, where it is installed
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products; auto: bfloat16 on a GPU
    parallel: Literal["ddp", "fsdp"] = "ddp"  # with torchrun: whole weights on each rank, or sharded (FSDP2)
    compile: bool | None = None  # each block by torch.compile; null: on a GPU
    deterministic: bool = False  # kernels that give the same bits each time, so that a resumed run does on a GPU too
    text_attention: Literal["masked", "maskless"] = "masked"  # maskless: for flash attention, which takes no mask
    activation_checkpointing: bool = False  # blocks are computed again in the backward pass: less memory, 1/3 slower
    peak_tflops: float | None = None  # of one device, for MFU, 10^12 operations a second; null: measured at the start
    vae: str | None = None  # folder of the latents' VAE, to decode samples; checked against the contract
    text_model: str | None = None  # folder of the text encoder; null: the contract's

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, steps=1, accumulate=1)
        sizes = self.batch_size if isinstance(self.batch_size, dict) else {"": self.batch_size}
        if not sizes:
            raise ConfigError("batch_size {}: a number for each bucket, such as {81x480x832: 1}")
        for bucket, size in sizes.items():
            name = f"batch_size.{bucket}" if bucket else "batch_size"
            if bucket and not (is_number(size) and isinstance(size, int)):
                raise ConfigError(f"{name} {size!r}: int is expected")
            if not isinstance(size, str) and size < 1:
                raise ConfigError(f"{name} {size!r}: at least 1")
        asked = self.balance.tokens or self.balance.seconds
        if self.batch_size == "balanced" and not asked:
            raise ConfigError("batch_size 'balanced' needs balance.tokens, the most of a step, or balance.seconds")
        if self.batch_size != "balanced" and asked:
            raise ConfigError(f"balance with batch_size {self.batch_size!r}: only batch_size balanced has a budget")
        from_0_to_below(self, 2**63, "seed", called="2**63")
        from_0_to_below(self, 1, "ema")
        above_0(self, "peak_tflops")
