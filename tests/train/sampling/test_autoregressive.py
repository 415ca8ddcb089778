"""Clips sampled one after another join without a seam, and continue from frames, never from latents of mid-clip."""

from __future__ import annotations

import pytest
import torch

from train.objectives.objective import Objective
from train.sampling.autoregressive import known_from_context, sample_autoregressively
from train.sampling.diffusion_samplers import sample_latents


def decode(latents):
    """Decodes as a causal VAE does: the first latent to one frame, every other one to four."""
    return torch.cat([latents[:, :, :1], latents[:, :, 1:].repeat_interleave(4, 2)], 2)


def encode(frames):
    assert frames.shape[2] % 4 == 1, frames.shape
    return torch.cat([frames[:, :, :1], frames[:, :, 1:].unflatten(2, (-1, 4)).mean(3)], 2)


def test_a_chained_video_goes_on_where_it_was():
    contexts = []

    def make(index, context):
        """A clip of 4 latents that counts on from the last given one."""
        contexts.append(context)
        if context is None:
            return torch.arange(4.0).reshape(1, 1, 4, 1, 1)
        more = context[0, 0, -1, 0, 0] + torch.arange(1, 5 - context.shape[2])
        return torch.cat([context, more.reshape(1, 1, -1, 1, 1)], 2)

    parts = list(sample_autoregressively(make, 3, 5, decode, encode))
    assert [part.shape[2] for part in parts] == [13, 8, 8]
    video = torch.cat(parts, 2).flatten()
    assert video.tolist() == [0, *(number for number in range(1, 8) for _ in range(4))]
    # four frames of the last latent, and one before them: a first latent of its own
    assert [each.flatten().tolist() for each in contexts[1:]] == [[2, 3], [4, 5]]


def test_a_chain_through_the_sampler_keeps_its_context():
    objective = Objective()

    def make(index, context):
        noise = torch.randn(2, 3, 4, 2, 2)
        if context is None:
            return sample_latents(objective, lambda x, t, step: torch.zeros_like(x), noise, steps=2)
        known, clean = known_from_context(context, 4)
        found = sample_latents(
            objective, lambda x, t, step: torch.zeros_like(x), noise, steps=2, known=known, clean=clean
        )
        assert torch.equal(found[:, :, :2], context)
        return found

    assert torch.cat(list(sample_autoregressively(make, 3, 5, decode, encode)), 2).shape == (2, 3, 13 + 8 + 8, 2, 2)


def test_a_chain_that_makes_nothing_new_is_refused():
    clip = torch.zeros(1, 1, 2, 1, 1)
    with pytest.raises(ValueError, match="clips of 5 frames that overlap by 5"):
        list(sample_autoregressively(lambda index, context: clip, 2, 5, decode, encode))
    with pytest.raises(ValueError, match="0 clips"):
        list(sample_autoregressively(lambda index, context: clip, 0, 1, decode, encode))
    with pytest.raises(ValueError, match="at least one must be left"):
        known_from_context(clip, 2)
