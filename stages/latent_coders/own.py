"""Runs clipmill's own causal VAE, with any of its bottlenecks, as a latent coder."""

from __future__ import annotations

import torch
from torch import Tensor

from models.saved.vae_files import load
from stages.base import SettingsError, one_line
from stages.latent_coders.coder import LatentCoder, Moments
from stages.latent_coders.info import CoderInfo


class OwnCoder(LatentCoder):
    @classmethod
    def load(cls, info: CoderInfo, device: str, dtype: torch.dtype, compile: bool) -> OwnCoder:
        try:
            vae = load(info.path)
        except ValueError as error:
            raise SettingsError(one_line(error)) from error
        vae = vae.to(device, dtype).requires_grad_(False)
        if compile:
            vae.encoder.compile()
        return cls(info, vae, device, dtype)

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        if self.info.codebook is None:
            return super().decode_tokens(tokens)
        self.info.check_latents(tokens.shape[1])
        with torch.inference_mode():
            return self.network.decode_tokens(tokens.to(self.device)).float().clamp(-1, 1)

    def _encode(self, video: Tensor) -> Moments:
        found = self.network.encode(video)
        return Moments(found.mean.float(), found.logvar, found.tokens)

    def _decode(self, latents: Tensor) -> Tensor:
        return self.network.decode(latents)
