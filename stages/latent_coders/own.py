"""Runs clipmill's own causal VAE, with any of its bottlenecks, as a latent coder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from models.saved.vae_files import load
from models.settings.vae import STRIDE
from models.vae.causal_vae import CausalVAE
from models.vae.chunks import (
    Part,
    choose_kernels_by_time,
    chunk_frames,
    elements_on,
    largest_activation,
    latents_of_pieces,
)
from models.vae.layers.causal_ops import frame_count, latent_count
from stages.base import SettingsError, one_line
from stages.latent_coders.coder import LatentCoder, Moments
from stages.latent_coders.info import CoderInfo


class OwnCoder(LatentCoder):
    """`chunk` is how many frames of a clip go through the network at a time at most; None: chosen by size."""

    network: CausalVAE
    chunk: int | None = None
    elements: int  # that an activation has at most

    @classmethod
    def load(
        cls, info: CoderInfo, device: str, dtype: torch.dtype, compile: bool, chunk: int | None = None
    ) -> OwnCoder:
        try:
            vae = load(info.path)
        except ValueError as error:
            raise SettingsError(one_line(error)) from error
        vae = vae.to(device, dtype).requires_grad_(False)
        if not device.startswith("cpu"):
            # Convolutions follow their input or their weight, and Inductor changes neither of three dimensions.
            vae = vae.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs lack it
        if compile:
            vae.encoder.compile(dynamic=False)  # dynamic shapes would turn off its passes over layouts
        choose_kernels_by_time(torch.device(device))
        made = cls(info, vae, device, dtype)
        made.chunk, made.elements = chunk, elements_on(torch.device(device))
        return made

    def latents_of(self, tokens: Tensor) -> Tensor:
        if self.info.codebook is None:
            return super().latents_of(tokens)
        self.info.check_latents(tokens.shape[1])
        return self.network.quantizer.latent_of(tokens.to(self.device))

    def clips_at_once(self, frames: int, height: int, width: int) -> int:
        frames = min(frames, self.chunk or frames)
        return max(1, self.elements // largest_activation(self.network.settings, "encoder", frames, height, width))

    def frames_of_pieces(self, clips: int, frames: int, height: int, width: int) -> list[int]:
        chunk = self._chunk("encoder", clips, frames, height, width)
        first, *others = latents_of_pieces(latent_count(frames), chunk)
        return [frame_count(first), *(STRIDE * latents for latents in others)]

    def take_smaller_pieces(self, frames: int, height: int, width: int) -> bool:
        longest = max(self.frames_of_pieces(1, frames, height, width))
        if longest <= STRIDE:
            return False
        self.chunk = max(STRIDE, longest // 2)
        return True

    def _chunk(self, part: Part, clips: int, frames: int, height: int, width: int) -> int:
        """Frames of the longest piece."""
        settings, elements = self.network.settings, self.elements // clips
        most = frames
        if largest_activation(settings, part, frames, height, width) > elements:
            most = chunk_frames(settings, part, elements, height, width)
        return min(most, self.chunk or most)

    def _encode(self, pieces: Iterator[Tensor]) -> Moments:
        first = next(pieces)
        second = next(pieces, None)
        if second is None:
            found = self.network.encode(first)
            return Moments(found.mean.float(), found.logvar, found.tokens)
        parts = list(self.network.encode_stream(chain((first, second), pieces)))
        mean, logvar, tokens = ([getattr(part, name) for part in parts] for name in ("mean", "logvar", "tokens"))
        return Moments(
            torch.cat(mean, dim=2).float(),
            None if logvar[0] is None else torch.cat(logvar, dim=2),
            None if tokens[0] is None else torch.cat(tokens, dim=1),
        )

    def _decode(self, latents: Tensor) -> Iterator[Tensor]:
        clips, _, count, *size = latents.shape
        height, width = (side * self.info.space_stride for side in size)
        sizes = latents_of_pieces(count, self._chunk("decoder", clips, frame_count(count), height, width))
        if len(sizes) == 1:
            yield self.network.decode(latents)
        else:
            yield from self.network.decode_stream(latents.split(sizes, dim=2))
