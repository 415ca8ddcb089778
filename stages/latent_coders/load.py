"""Loads a VAE for use: our own, or a published one through diffusers."""

from __future__ import annotations

from stages.latent_coders.coder import LatentCoder
from stages.latent_coders.describe import OWN, describe_coder
from stages.pretrained.devices import dtype_on, torch_device
from stages.settings import Dtype


def load_coder(
    model: str,
    subfolder: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    compile: bool = False,
    chunk: int | None = None,
) -> LatentCoder:
    """The VAE that `describe_coder` describes, ready to run.

    `device` 'auto' takes a GPU where there is one; `dtype` 'auto' is bfloat16 on GPUs and float32 on CPUs.
    `compile` has torch compile the encoder, once for each shape of video; encoders that go through a clip in pieces
    (Wan, CogVideoX) are left as they are, because every piece would be compiled anew. `chunk` is how many frames of a
    clip go through our own VAE at a time at most; None: chosen by size. Raises SettingsError, in one line: no such
    device, weights that do not fit, `chunk` for a published VAE, and whatever `describe_coder` raises.
    """
    import torch

    info = describe_coder(model, subfolder, revision)
    info.check_chunk(chunk)
    device = torch_device(device)
    torch_dtype = getattr(torch, dtype_on(device, dtype))
    if info.kind == OWN:
        from stages.latent_coders.own import OwnCoder

        return OwnCoder.load(info, device, torch_dtype, compile, chunk)
    from stages.latent_coders.from_diffusers import DiffusersCoder

    return DiffusersCoder.load(info, device, torch_dtype, compile)
