"""Runs published VAEs through diffusers, each as its own pipelines run it, with spatial tiling off."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from stages.base import SettingsError, one_line
from stages.latent_coders.coder import LatentCoder, Moments
from stages.latent_coders.info import CoderInfo
from stages.latent_coders.published import PUBLISHED
from stages.pretrained.model_files import refuse_missing_weights
from stages.pretrained.packages import require_packages


class DiffusersCoder(LatentCoder):
    @classmethod
    def load(cls, info: CoderInfo, device: str, dtype: torch.dtype, compile: bool) -> DiffusersCoder:
        require_packages("diffusers", extra="vae")
        import diffusers
        from diffusers.utils import logging

        logging.set_verbosity_error()
        safe = any(Path(info.path).glob("*.safetensors"))  # else it complains of their absence before it goes on
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                vae, found = getattr(diffusers, info.kind).from_pretrained(
                    info.path, torch_dtype=dtype, local_files_only=True, output_loading_info=True,
                    low_cpu_mem_usage=False, use_safetensors=safe,
                )  # fmt: skip
        except Exception as error:  # diffusers has many classes of errors for a damaged folder
            raise SettingsError(f"{info.path} can't be loaded as {info.kind}: {one_line(error)[:300]}") from error
        refuse_missing_weights(info.path, found["missing_keys"])
        vae = vae.to(device).eval().requires_grad_(False)
        if compile and not PUBLISHED[info.kind].in_pieces:
            vae.encoder.compile(dynamic=False)
        return cls(info, vae, device, dtype)

    def _encode(self, pieces: Iterator[Tensor]) -> Moments:
        (video,) = pieces
        per_frame = self.info.kind == "AutoencoderKL"
        given = video.transpose(1, 2).flatten(0, 1) if per_frame else video  # (B T, 3, H, W)
        found = self.network.encode(given).latent_dist
        mean, logvar = found.mean.float(), found.logvar.float()
        if per_frame:
            mean, logvar = (each.unflatten(0, (len(video), -1)).transpose(1, 2) for each in (mean, logvar))
        return Moments(mean.contiguous(), logvar.contiguous())

    def _decode(self, latents: Tensor) -> Iterator[Tensor]:
        yield self._decoded(latents)

    def _decoded(self, latents: Tensor) -> Tensor:
        if self.info.kind == "AutoencoderKL":
            frames = self.network.decode(latents.transpose(1, 2).flatten(0, 1)).sample
            return frames.unflatten(0, (len(latents), -1)).transpose(1, 2).contiguous()
        if self.info.kind != "AutoencoderKLLTXVideo":
            return self.network.decode(latents).sample
        # Later versions take the noise level of the latents, none here, and may draw noise of their own.
        times = latents.new_zeros(len(latents)) if self.network.config.timestep_conditioning else None
        with torch.random.fork_rng(devices=[latents.device] if latents.is_cuda else []):
            torch.manual_seed(0)
            return self.network.decode(latents, times).sample
