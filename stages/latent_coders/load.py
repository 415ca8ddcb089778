"""Loads a VAE for use: our own, or a published one through diffusers."""

from __future__ import annotations

from stages.base import SettingsError
from stages.latent_coders.coder import Dtype, LatentCoder
from stages.latent_coders.describe import OWN, describe_coder


def load_coder(
    model: str,
    subfolder: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    compile: bool = False,
) -> LatentCoder:
    """The VAE that `describe_coder` describes, ready to run.

    `device` 'auto' takes a GPU where there is one; `dtype` 'auto' is bfloat16 on GPUs and float32 on CPUs.
    `compile` has torch compile the encoder, once for each shape of video; not one that goes through a clip in pieces
    (Wan, CogVideoX), each of which would be another network to it. Raises SettingsError, in one line: no such
    device, weights that do not fit, and whatever `describe_coder` raises.
    """
    import torch

    info = describe_coder(model, subfolder, revision)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"device: {device}, but there is no GPU that torch can use")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    name = dtype if dtype != "auto" else "bfloat16" if chosen.startswith("cuda") else "float32"
    if info.kind == OWN:
        from stages.latent_coders.own import OwnCoder as Kind
    else:
        from stages.latent_coders.from_diffusers import DiffusersCoder as Kind
    return Kind.load(info, chosen, getattr(torch, name), compile)
