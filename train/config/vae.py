"""The config of a VAE's training run: every setting with its unit and default. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from models.settings.vae import VAESettings, sized
from models.settings.validation import CheckedSettings, ConfigError, above_0, at_least, from_0_to_below, shares
from train.config.training import CheckpointConfig, OptimizerConfig

KEPT = "SELECT clip_id FROM clips WHERE verdict = 'kept'"
MOST_FPS = 1000
BUCKET = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})")


@dataclass(frozen=True)
class ClipsConfig(CheckedSettings):
    """Which clips are trained on, and which windows of them. Pixels are decoded while the network learns."""

    select: str = KEPT  # SQL that gives clip_id
    buckets: tuple[str, ...] = ("17x256x256",)  # FRAMESxHEIGHTxWIDTH, pixels; a clip takes the one that fits it best
    fps: float = 24.0  # frames a second
    image_share: float = 0.2  # of the steps, which train on single frames
    max_upscale: float = 1.0  # times that a pixel may be enlarged to fit a bucket
    flip: bool = True  # half of the windows mirrored left to right

    def __post_init__(self) -> None:
        super().__post_init__()
        shares(self, "image_share")
        above_0(self, "fps", "max_upscale")
        if self.fps > MOST_FPS:
            raise ConfigError(f"fps {self.fps!r}: at most {MOST_FPS}")
        if not self.buckets:
            raise ConfigError("buckets is empty: one at least is needed, such as 17x256x256")
        for bucket in self.buckets:
            if not BUCKET.fullmatch(bucket):
                raise ConfigError(f"buckets {bucket!r}: FRAMESxHEIGHTxWIDTH is wanted, such as 17x256x256")


@dataclass(frozen=True)
class DecodersConfig(CheckedSettings):
    """How pixels are decoded. Nothing that is learned depends on it."""

    threads: int = 1  # decoders that run at once, each in a process that can be killed
    cache_gb: float = 1.0  # pixels of whole clips kept in memory, 10^9 bytes: small sets are decoded once
    ahead: int = 8  # batches decoded ahead of the network

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, threads=1, cache_gb=0, ahead=1)


@dataclass(frozen=True)
class LossConfig(CheckedSettings):
    """Weights of the loss terms. Each term is a mean over elements, so weights hold for any size and length of clip."""

    pixels: Literal["l1", "mse"] = "l1"  # its weight is 1
    kl: float = 1e-6  # of a Gaussian
    codebook: float = 1.0  # of vq, lfq and fsq
    perceptual: Literal["lpips", "gradients", "none"] = "gradients"
    perceptual_weight: float = 1.0
    lpips: str | None = None  # file of the published lpips package: vgg.pth or alex.pth
    backbone: str | None = None  # file of torchvision's weights of VGG-16 or AlexNet, to go with it
    adversarial: float = 0.5  # times the adaptive ratio of gradients; 0: no discriminator
    adversarial_start: int = 50_000  # steps before the discriminator begins

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, kl=0, codebook=0, perceptual_weight=0, adversarial=0, adversarial_start=0)
        if self.perceptual == "lpips" and (self.lpips is None or self.backbone is None):
            raise ConfigError(
                "perceptual 'lpips' needs loss.lpips (vgg.pth or alex.pth of the lpips package) and "
                "loss.backbone (torchvision's VGG-16 or AlexNet); without them: gradients, or none"
            )


@dataclass(frozen=True)
class DiscriminatorConfig(CheckedSettings):
    """The PatchGAN discriminator of the adversarial term."""

    width: int = 64  # channels of its first layer
    layers: int = 3  # that halve height and width
    lr: float | None = None  # learning rate; null: the optimizer's

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, width=1, layers=1)


@dataclass(frozen=True)
class HeldOutConfig(CheckedSettings):
    """Clips that are measured and never trained on, chosen by a hash of their source: all of a source or none."""

    share: float = 0.05  # of the sources; 0: none
    least: int = 8  # sources held out, where the share gives fewer; never more than half of them
    clips: int = 64  # measured at most
    every: int = 0  # optimizer steps between measurements during training; 0: only at the end

    def __post_init__(self) -> None:
        super().__post_init__()
        from_0_to_below(self, 1, "share")
        at_least(self, least=0, clips=1, every=0)


@dataclass(frozen=True)
class VAETrainConfig(CheckedSettings):
    """A run of `clipmill train` on the clips of a catalog. Raises ConfigError for invalid settings."""

    kind: Literal["vae"] = "vae"
    model: dict[str, Any] = field(default_factory=lambda: {"size": "published"})  # a size, and what differs from it
    start: str | None = None  # initial weights: safetensors of a 2D VAE (Stable Diffusion's), or a saved VAE's folder
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
    activation_checkpointing: bool = False  # blocks are computed again in the backward pass: less memory, 1/3 slower

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, steps=1, batch_size=1)
        from_0_to_below(self, 2**32, "seed", called="2**32")  # seed and step make up one number of 64 bits
        from_0_to_below(self, 1, "ema")
        space = self.settings().space
        for bucket in self.clips.buckets:
            frames, height, width = (int(each) for each in bucket.split("x"))
            if (frames - 1) % 4 or height % space or width % space:
                raise ConfigError(
                    f"clips.buckets {bucket}: this VAE takes 1 + 4n frames of multiples of {space} pixels"
                )

    def settings(self) -> VAESettings:
        """Settings of the network that is trained. Raises ConfigError."""
        wanted = dict(self.model)
        try:
            return sized(wanted.pop("size", "published"), **wanted)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model: {error}") from error
