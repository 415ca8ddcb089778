"""Small VAEs with random weights, ours and published ones, saved as real ones are: what the tests load."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

FOUR = (8, 8, 8, 8)
WAN = dict(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
LTX = dict(
    latent_channels=8, block_out_channels=FOUR, decoder_block_out_channels=FOUR,
    layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
)  # fmt: skip
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "wan": (
        "AutoencoderKLWan",
        dict(**WAN, z_dim=4, latents_mean=[0.1, -0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 3.0, 4.0]),
    ),
    "wan 2.2": (
        "AutoencoderKLWan",
        dict(
            **WAN, z_dim=6, latents_mean=[0.5] * 6, latents_std=[2.0] * 6, patch_size=2, in_channels=12,
            out_channels=12, is_residual=True, scale_factor_spatial=16,
        ),
    ),
    "cogvideox": (
        "AutoencoderKLCogVideoX",
        dict(block_out_channels=FOUR, latent_channels=4, layers_per_block=1, norm_num_groups=2),
    ),
    "hunyuan": (
        "AutoencoderKLHunyuanVideo",
        dict(block_out_channels=FOUR, latent_channels=4, layers_per_block=1, norm_num_groups=2),
    ),
    "ltx": ("AutoencoderKLLTXVideo", dict(**LTX, scaling_factor=0.5)),
    "ltx 0.9.1": (
        "AutoencoderKLLTXVideo",
        dict(**LTX, timestep_conditioning=True, decoder_inject_noise=(True,) * 5),
    ),
    "stable diffusion": (
        "AutoencoderKL",
        dict(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=FOUR, norm_num_groups=2,
        ),
    ),
    "flux": (
        "AutoencoderKL",
        dict(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8), norm_num_groups=2, latent_channels=6, scaling_factor=0.3611,
            shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False,
        ),
    ),
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "kl": {},
    "vq": dict(quantizer="vq", quantizer_options={"codes": 16}),
    "lfq": dict(quantizer="lfq"),
    "fsq": dict(quantizer="fsq", quantizer_options={"levels": (8, 5, 5, 4)}),
}
EVERY = [*SMALL, *OWN]
MEAN, STD = (0.5, 0.0, -1.0, 2.0), (1.0, 2.0, 0.5, 3.0)  # of the latents of our own


def own(name: str) -> Any:
    """Our own VAE with the bottleneck of that name, the same every time."""
    import torch

    from models.settings.vae import VAESettings
    from models.vae.causal_vae import CausalVAE

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = dict(width=4, multipliers=(1, 1, 1), encoder_blocks=1, decoder_blocks=1, groups=2)
        return CausalVAE(VAESettings(**{**small, **OWN[name]})).eval()


@cache
def folder(name: str) -> Path:
    """Where that VAE lies, saved once; not to be changed."""
    from models.saved.vae_files import save

    root = Path(tempfile.mkdtemp(prefix="vae-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    if name in SMALL:
        return saved(name, root / name.replace(" ", "-"))
    save(own(name), root / name, latents_mean=MEAN, latents_std=STD)
    return root / name


def made(name: str) -> Any:
    """The network of that name, the same every time."""
    import diffusers
    import torch

    kind, options = SMALL[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(diffusers, kind)(**options).eval()
        if kind == "AutoencoderKLLTXVideo":  # which keeps them with its weights
            network.latents_mean.copy_(torch.randn(8))
            network.latents_std.copy_(torch.rand(8) + 0.5)
    return network


def saved(name: str, folder: Path) -> Path:
    made(name).save_pretrained(folder)
    return folder


def video(info: Any, steps: int = 1, batch: int = 1, seed: int = 0) -> Any:
    """The shortest clip but `steps`, (B, 3, T, H, W) in [-1, 1], two latents high and three wide."""
    import torch

    frames = (1 + info.frame_step * steps) if info.first_frame else info.frame_step * (steps + 1)
    size = (2 * info.space_stride, 3 * info.space_stride)
    return torch.rand(batch, 3, frames, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
