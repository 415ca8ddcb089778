"""Latents are normalized by the contract, and noise follows from its key alone."""

from __future__ import annotations

import pytest
import torch

from tests.train.made_up import CONTRACT, Clips
from train.data.latents import KeyedGenerators, gaussian_noise, normalized


def test_latents_are_normalized_channel_by_channel_by_the_contract():
    latents = Clips(8).batch("9x32x32", list(range(8))).latents
    found = normalized(latents, CONTRACT, None)
    for channel in range(4):
        expected = (latents["mean"][:, channel].double() - CONTRACT["mean"][channel]) / CONTRACT["std"][channel]
        torch.testing.assert_close(found[:, channel].double(), expected, rtol=1e-6, atol=1e-6)


def test_a_latent_is_drawn_with_the_stored_variance():
    latents = {"mean": torch.zeros(1, 4, 8, 32, 32).half(), "logvar": torch.full((1, 4, 8, 32, 32), -2.0).half()}
    plain = {**CONTRACT, "mean": [0.0] * 4, "std": [1.0] * 4}
    found = normalized(latents, plain, [torch.Generator().manual_seed(0)])
    assert float(found.std()) == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.02)
    assert abs(float(found.mean())) < 0.01


def test_noise_follows_from_its_key_alone():
    draws, like = KeyedGenerators(3), torch.empty(2, 4, 2, 3, 3)
    one, two = gaussian_noise(like, [draws("noise", 5, 0), draws("noise", 5, 1)])
    assert torch.equal(gaussian_noise(like[:1], [draws("noise", 5, 1)])[0], two)
    others = [KeyedGenerators(4)("noise", 5, 1), draws("noise", 6, 1), draws("times", 5, 1), draws("noise", 5, 11)]
    assert all(not torch.equal(gaussian_noise(like[:1], [each])[0], two) for each in others)
    assert not torch.equal(one, two)
