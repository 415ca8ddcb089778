"""Reads the configs of published VAEs (Wan, CogVideoX, Hunyuan, LTX, Stable Diffusion) without torch or diffusers.

Each entry follows the class in diffusers and its pipelines, which decide how latents are scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True)
class PublishedVAE:
    """How to read the config of one class: its channels and its strides in `time` and `space`. `defaults` are those
    of its constructor, for keys that an older config lacks.
    """

    channels: str  # the config's key
    time: Callable[[Config], int]
    space: Callable[[Config], int]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    frame_step: int = 1  # clips of 1 + frame_step * time * n frames come back as long as they were
    first_frame: bool = True
    in_weights: bool = False  # latents_mean and latents_std are buffers, not settings
    in_pieces: bool = False  # encodes a clip piece by piece, with a cache of the piece before

    def filled(self, config: Config) -> dict[str, Any]:
        return {**self.defaults, **{key: value for key, value in config.items() if not key.startswith("_")}}


def _halvings(config: Config) -> int:
    return 2 ** (len(config["block_out_channels"]) - 1)


def _ltx(kind: str, patch: str) -> Callable[[Config], int]:
    def stride(config: Config) -> int:
        said = config[f"{kind}_compression_ratio"]
        return int(said or config[patch] * 2 ** sum(map(bool, config["spatio_temporal_scaling"])))

    return stride


WAN_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
            0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)  # fmt: skip
WAN_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
           3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)  # fmt: skip

PUBLISHED: dict[str, PublishedVAE] = {
    "AutoencoderKLWan": PublishedVAE(
        "z_dim",
        time=lambda config: 2 ** sum(map(bool, config["temperal_downsample"])),
        space=lambda config: 2 ** (len(config["dim_mult"]) - 1) * (config["patch_size"] or 1),
        defaults={
            "z_dim": 16, "dim_mult": (1, 2, 4, 4), "temperal_downsample": (False, True, True), "patch_size": None,
            "latents_mean": WAN_MEAN, "latents_std": WAN_STD,
        },
        in_pieces=True,
    ),
    # Decodes two latents at a time and takes the first of an odd number for the frame that stands alone: an even
    # number of latents comes back as another number of frames.
    "AutoencoderKLCogVideoX": PublishedVAE(
        "latent_channels",
        time=lambda config: int(config["temporal_compression_ratio"]),
        space=_halvings,
        defaults={
            "latent_channels": 16, "temporal_compression_ratio": 4, "block_out_channels": (128, 256, 256, 512),
            "scaling_factor": 1.15258426,
        },
        frame_step=2,
        in_pieces=True,
    ),
    "AutoencoderKLHunyuanVideo": PublishedVAE(
        "latent_channels",
        time=lambda config: config["temporal_compression_ratio"],
        space=lambda config: config["spatial_compression_ratio"],
        defaults={
            "latent_channels": 16, "temporal_compression_ratio": 4, "spatial_compression_ratio": 8,
            "scaling_factor": 0.476986,
        },
    ),
    "AutoencoderKLLTXVideo": PublishedVAE(
        "latent_channels",
        time=_ltx("temporal", "patch_size_t"),
        space=_ltx("spatial", "patch_size"),
        defaults={
            "latent_channels": 128, "patch_size": 4, "patch_size_t": 1, "scaling_factor": 1.0,
            "spatio_temporal_scaling": (True, True, True, False),
            "spatial_compression_ratio": None, "temporal_compression_ratio": None,
        },
        in_weights=True,
    ),
    "AutoencoderKL": PublishedVAE(  # Stable Diffusion and Flux: every frame is a picture by itself
        "latent_channels",
        time=lambda config: 1,
        space=_halvings,
        defaults={"latent_channels": 4, "block_out_channels": (64,), "scaling_factor": 0.18215},
        first_frame=False,
    ),
}  # fmt: skip


def scaling(
    config: Config, channels: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) such that (z - mean) / std is what the published networks see.

    Pipelines of diffusers do one of (z - latents_mean) * scaling_factor / latents_std, (z - shift_factor) *
    scaling_factor, or z * scaling_factor; it is the first with what is not given left out. `mean` and `std` are
    those of a class that keeps them with its weights. Raises ValueError where they do not fit the channels.
    """
    mean = config.get("latents_mean") if mean is None else mean
    std = config.get("latents_std") if std is None else std
    factor = 1.0 if config.get("scaling_factor") is None else float(config["scaling_factor"])
    centre = [config.get("shift_factor") or 0.0] * channels if mean is None else mean
    spread = [1.0] * channels if std is None else std
    if len(centre) != channels or len(spread) != channels:
        raise ValueError(f"{len(centre)} and {len(spread)} numbers of mean and spread for {channels} channels")
    if not factor > 0 or not all(number > 0 for number in spread):
        raise ValueError(f"a scaling factor of {factor:g} and a spread from {min(spread):g}: both are above 0")
    return tuple(map(float, centre)), tuple(float(number) / factor for number in spread)
