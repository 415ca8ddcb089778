"""Video longer than a network makes at once: clip after clip, each continuing from the end of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from train.objectives.masks import latents_mask


def sample_autoregressively(
    make: Callable[[int, Tensor | None], Tensor],
    clips: int,
    overlap: int,
    decode: Callable[[Tensor], Tensor],
    encode: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:
    """Yields the new frames (B, 3, F, H, W) of each of the `clips`; joined along time they are the whole video.

    `make(index, context)` samples the latents (B, C, T, h, w) of a clip; its context (B, C, K, h, w), None for the
    first clip, is given as its first latents (see `known_from_context`). The context is the last `overlap` frames of
    the clip before, encoded again: a causal VAE's first latent stands for one frame and the others for four, so
    latents taken from the middle of a clip would be misread. `overlap` is 1 + 4n frames for such a VAE.
    Raises ValueError for an overlap that leaves no new frame.
    """
    if clips < 1 or overlap < 1:
        raise ValueError(f"{clips} clips that overlap by {overlap} frames: at least one of each")
    context = None
    for index in range(clips):
        frames = decode(make(index, context))
        if overlap >= frames.shape[2]:
            raise ValueError(f"clips of {frames.shape[2]} frames that overlap by {overlap}: nothing of them is new")
        yield frames if context is None else frames[:, :, overlap:]
        if index < clips - 1:
            context = encode(frames[:, :, -overlap:])


def known_from_context(context: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """The `known` mask (T, H, W) and `clean` latents (B, C, T, H, W) of `sample_latents`, for clips of T = `frames`
    latents that begin with the context (B, C, K, H, W). Raises ValueError unless K < T.
    """
    batch, channels, first, height, width = context.shape
    known = latents_mask((frames, height, width), first=first).to(context.device)
    clean = torch.cat([context, context.new_zeros(batch, channels, frames - first, height, width)], dim=2)
    return known, clean
