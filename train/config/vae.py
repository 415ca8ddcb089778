"""What can be chosen about training a VAE, with units and defaults. No torch here."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.settings.vae import VAESettings, sized
from models.settings.validation import ConfigError, above_0, at_least, built, from_0_to_below, listed, one_of
from train.config.training import CheckpointConfig, OptimizerConfig

KEPT = "SELECT clip_id FROM clips WHERE verdict = 'kept'"
MOST_FPS = 1000
BUCKET = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})")


@dataclass(frozen=True)
class ClipsConfig:
    """Which clips, and what is cut out of them. The pixels are decoded while the network learns."""

    select: str = KEPT  # SQL that gives clip_id
    buckets: tuple[str, ...] = ("17x256x256",)  # FRAMESxHEIGHTxWIDTH, pixels; each clip takes the one that suits it
    fps: float = 24.0  # frames a second
    image_share: float = 0.2  # of the steps, which see single frames
    max_upscale: float = 1.0  # times that a pixel may be enlarged to fit a bucket
    flip: bool = True  # half of the windows mirrored left to right

    def __post_init__(self) -> None:
        listed(self, "buckets")
        if not 0 <= self.image_share <= 1:
            raise ConfigError(f"clips.image_share {self.image_share!r}: a share from 0 to 1")
        for name in ("fps", "max_upscale"):
            above_0(f"clips.{name}", getattr(self, name))
        if self.fps > MOST_FPS:
            raise ConfigError(f"clips.fps {self.fps!r}: at most {MOST_FPS}")
        if not self.buckets:
            raise ConfigError("clips.buckets is empty: one at least is needed, such as 17x256x256")
        for bucket in self.buckets:
            if not isinstance(bucket, str) or not BUCKET.fullmatch(bucket):
                raise ConfigError(f"clips.buckets {bucket!r}: FRAMESxHEIGHTxWIDTH is wanted, such as 17x256x256")


@dataclass(frozen=True)
class DecodersConfig:
    """How pixels are had. Nothing that is learnt depends on it."""

    threads: int = 1  # decoders that run at once, a killable process each
    cache_gb: float = 1.0  # pixels of whole clips kept in memory, 10^9 bytes: small sets are decoded once
    ahead: int = 8  # batches that are decoded while the network works on those before

    def __post_init__(self) -> None:
        at_least(self, "loader", threads=1, cache_gb=0, ahead=1)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms. Each is a mean over elements, so that they do not change with a clip's size or length."""

    pixels: Literal["l1", "mse"] = "l1"  # its weight is 1
    kl: float = 1e-6  # of a Gaussian
    codebook: float = 1.0  # of vq, lfq and fsq
    perceptual: Literal["lpips", "gradients", "none"] = "gradients"
    perceptual_weight: float = 1.0
    lpips: str | None = None  # weights of the published lpips package: vgg.pth or alex.pth
    backbone: str | None = None  # torchvision's weights of VGG-16 or AlexNet, to go with them
    adversarial: float = 0.5  # times the adaptive ratio of gradients; 0: no discriminator
    adversarial_start: int = 50_000  # steps before the discriminator begins

    def __post_init__(self) -> None:
        one_of("loss.pixels", self.pixels, ("l1", "mse"))
        one_of("loss.perceptual", self.perceptual, ("lpips", "gradients", "none"))
        names = ("kl", "codebook", "perceptual_weight", "adversarial", "adversarial_start")
        at_least(self, "loss", **dict.fromkeys(names, 0))
        if self.perceptual == "lpips" and (self.lpips is None or self.backbone is None):
            raise ConfigError(
                "loss.perceptual 'lpips' needs loss.lpips (vgg.pth or alex.pth of the lpips package) and "
                "loss.backbone (torchvision's VGG-16 or AlexNet); without them: gradients, or none"
            )


@dataclass(frozen=True)
class DiscriminatorConfig:
    width: int = 64  # channels of its first layer
    layers: int = 3  # that halve
    lr: float | None = None  # null: that of the optimizer

    def __post_init__(self) -> None:
        at_least(self, "discriminator", width=1, layers=1)


@dataclass(frozen=True)
class HeldOutConfig:
    """Clips that are measured and never trained on, by a hash of their source: all of a source or none."""

    share: float = 0.05  # of the sources; of two or more sources one at least is held out, unless 0
    clips: int = 64  # measured at most
    every: int = 0  # optimiser steps between measurements during training; 0: at the end alone

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError(f"validation.share {self.share!r}: from 0 to below 1")
        at_least(self, "validation", clips=1, every=0)


@dataclass(frozen=True)
class VAETrainConfig:
    """A run of `clipmill train` on the clips of a catalog. Raises ConfigError for what can't be."""

    kind: Literal["vae"] = "vae"
    model: dict[str, Any] = field(default_factory=lambda: {"size": "published"})  # a size, and what differs from it
    start: str | None = None  # safetensors of a 2D VAE (Stable Diffusion's), or a folder of one of ours, to begin with
    steps: int = 650_000
    batch_size: int = 8  # windows in one step
    seed: int = 0  # of weights, order, places of windows, noise
    ema: float = 0.999  # decay of the averaged weights
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    loader: DecodersConfig = field(default_factory=DecodersConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-5, betas=(0.9, 0.95)))
    validation: HeldOutConfig = field(default_factory=HeldOutConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products; auto: bfloat16 on a GPU

    def __post_init__(self) -> None:
        one_of("kind", self.kind, ("vae",))
        one_of("dtype", self.dtype, ("auto", "float32", "bfloat16"))
        at_least(self, "", steps=1, batch_size=1)
        from_0_to_below("seed", self.seed, 2**32, "2**32")  # the number of the step goes below it in one of 64 bits
        from_0_to_below("ema", self.ema, 1)
        space = self.settings().space
        for bucket in self.clips.buckets:
            frames, height, width = (int(each) for each in bucket.split("x"))
            if (frames - 1) % 4 or height % space or width % space:
                raise ConfigError(
                    f"clips.buckets {bucket}: this VAE takes 1 + 4n frames of multiples of {space} pixels"
                )

    def settings(self) -> VAESettings:
        """Of the network that is trained. Raises ConfigError."""
        wanted = dict(self.model)
        try:
            return sized(wanted.pop("size", "published"), **wanted)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VAETrainConfig:
        """From JSON or YAML. Raises ConfigError, naming the keys there are, for one that there is not."""
        return built(cls, values, "")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
