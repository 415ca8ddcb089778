"""Published VAEs, through diffusers: each as its own pipelines run it, spatial tiling off."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import Tensor

from stages.base import SettingsError, one_line
from stages.latent_coders.coder import LatentCoder, Moments
from stages.latent_coders.info import CoderInfo
from stages.latent_coders.published import LAYOUTS


class DiffusersCoder(LatentCoder):
    @classmethod
    def load(cls, info: CoderInfo, device: str, dtype: torch.dtype, compile: bool) -> DiffusersCoder:
        if importlib.util.find_spec("diffusers") is None:
            raise SettingsError(f"{info.kind} needs the package diffusers: pip install 'clipmill[vae]'")
        import diffusers

        diffusers.logging.set_verbosity_error()
        safe = any(Path(info.path).glob("*.safetensors"))  # else it complains of their absence before it goes on
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                vae, found = getattr(diffusers, info.kind).from_pretrained(
                    info.path, torch_dtype=dtype, local_files_only=True, output_loading_info=True,
                    low_cpu_mem_usage=False, use_safetensors=safe,
                )  # fmt: skip
        except Exception as error:  # every way in which a folder can be no such model
            raise SettingsError(f"{info.path} can't be loaded as {info.kind}: {one_line(error)[:300]}") from error
        if missing := sorted(found["missing_keys"]):
            # diffusers would go on with random numbers in their place.
            lacks = f"lacks {len(missing)} of its weights, {missing[0]} among them"
            raise SettingsError(f"{info.path} {lacks}")
        vae = vae.to(device).eval().requires_grad_(False)
        if compile and not LAYOUTS[info.kind].in_pieces:
            vae.encoder.compile()
        return cls(info, vae, device, dtype)

    def _encode(self, video: Tensor) -> Moments:
        per_frame = self.info.kind == "AutoencoderKL"
        given = video.transpose(1, 2).flatten(0, 1) if per_frame else video  # (B T, 3, H, W)
        found = self.network.encode(given).latent_dist
        mean, logvar = found.mean.float(), found.logvar.float()
        if per_frame:
            mean, logvar = (each.unflatten(0, (len(video), -1)).transpose(1, 2) for each in (mean, logvar))
        return Moments(mean.contiguous(), logvar.contiguous())

    def _decode(self, latents: Tensor) -> Tensor:
        if self.info.kind == "AutoencoderKL":
            frames = self.network.decode(latents.transpose(1, 2).flatten(0, 1)).sample
            return frames.unflatten(0, (len(latents), -1)).transpose(1, 2).contiguous()
        if self.info.kind != "AutoencoderKLLTXVideo":
            return self.network.decode(latents).sample
        # Later ones are told how much noise is left in the latents, none here, and may draw noise of their own.
        times = latents.new_zeros(len(latents)) if self.network.config.timestep_conditioning else None
        with torch.random.fork_rng(devices=[latents.device] if latents.is_cuda else []):
            torch.manual_seed(0)
            return self.network.decode(latents, times).sample
