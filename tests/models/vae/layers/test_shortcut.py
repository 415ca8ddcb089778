"""The linear way around the VAE's networks: causal, streaming, and a good code before anything is learnt."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.settings.vae import VAESettings
from models.vae.causal_vae import CausalVAE
from models.vae.from_2d import load_2d
from models.vae.layers.causal_ops import Stream, frame_count
from models.vae.layers.shortcut import PatchesIn, PatchesOut
from tests.torch_state import seeded

__all__ = ["seeded"]

SMALL = dict(width=8, multipliers=(1, 2, 2, 2), encoder_blocks=1, decoder_blocks=1, groups=4, shortcut=True)
fast = settings(max_examples=15, deadline=None, derandomize=True)


def around(channels: int = 8, side: int = 8, random: bool = True) -> tuple[PatchesIn, PatchesOut]:
    parts = PatchesIn(channels, side), PatchesOut(channels, side)
    if not random:
        for part in parts:
            part.init_as_cosine_transform()
    return tuple(part.requires_grad_(False) for part in parts)


def video(frames: int, height: int = 16, width: int = 24, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, frames, height, width) * 2 - 1


@fast
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5), cuts=st.lists(st.integers(1, 2), min_size=4))
def test_in_chunks_of_any_length_it_gives_what_the_whole_clip_gives(sizes, cuts):
    there, back = around()
    sizes = [*sizes, -(sum(sizes) - 1) % 4]
    clip, stream = video(sum(sizes)), Stream()
    whole = there(clip)
    found = torch.cat([there(part, stream) for part in clip.split(sizes, dim=2)], dim=2)
    assert torch.allclose(found, whole, atol=1e-5)
    latents, stream = torch.randn(1, 8, 2 * len(cuts), 2, 3), Stream()
    pieces = [*cuts, 2 * len(cuts) - sum(cuts)]
    decoded = torch.cat([back(part, stream) for part in latents.split(pieces, dim=2)], dim=2)
    assert decoded.shape[2] == frame_count(2 * len(cuts))
    assert torch.allclose(decoded, back(latents), atol=1e-5)


def test_in_bfloat16_it_gives_what_it_gives_in_float32():
    """As a convolution it did not, on CPUs that multiply bfloat16 in hardware."""
    shortcut = PatchesIn(8, 8)
    shortcut.init_as_cosine_transform()
    video = torch.randn(1, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0))
    wanted = shortcut(video)
    found = shortcut.bfloat16()(video.bfloat16()).float()
    assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_nothing_of_the_future_goes_through():
    there, back = around()
    clip = video(13)
    other = clip.clone()
    other[:, :, 5:] = video(8)
    assert torch.equal(there(clip)[:, :, :2], there(other)[:, :, :2])
    assert not torch.equal(there(clip)[:, :, 2], there(other)[:, :, 2])
    one, two = there(clip), there(other)
    assert torch.equal(back(one)[:, :, :5], back(two)[:, :, :5])
    assert torch.allclose(there(clip)[:, :, :1], there(clip[:, :, :1]), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4, 8, 16])
@pytest.mark.parametrize("side", [4, 8])
def test_what_it_lets_through_at_first_comes_back_and_again_unchanged(channels, side):
    """A code and its inverse on the waves that there are: going round twice is going round once."""
    there, back = around(channels, side, random=False)
    once = back(there(video(9, 2 * side, 3 * side)))
    assert once.std() > 0.01
    latents = there(once)
    # The first latent is of four frames that are alike: waves in time do not come back from one.
    assert torch.allclose(there(back(latents))[:, :, 1:], latents[:, :, 1:], atol=1e-5)
    assert torch.allclose(back(latents)[:, :, 1:], once[:, :, 1:], atol=1e-5)


def test_plain_colours_pass_exactly_at_first():
    there, back = around(8, random=False)
    plain = torch.tensor([0.8, -0.3, 0.1]).view(1, 3, 1, 1, 1).expand(1, 3, 9, 16, 16)
    assert torch.allclose(back(there(plain)), plain, atol=1e-5)


def test_a_vae_with_it_codes_smooth_video_before_it_has_learnt_anything():
    slope = torch.linspace(-0.8, 0.8, 32)
    clip = torch.stack([slope.expand(9, 32, 32), slope.view(32, 1).expand(9, 32, 32), torch.zeros(9, 32, 32)])[None]
    errors = {}
    for shortcut in (True, False):
        vae = CausalVAE(VAESettings(**{**SMALL, "channels": 8, "shortcut": shortcut})).eval()
        with torch.no_grad():
            errors[shortcut] = (vae(clip)[0] - clip).square().mean()
    assert errors[True] < 0.02 < clip.var() / 4 < errors[False]


def test_a_vae_with_it_streams_and_takes_images():
    vae = CausalVAE(VAESettings(**SMALL)).eval().requires_grad_(False)
    for part in (vae.shortcut_in, vae.shortcut_out):
        torch.nn.init.normal_(part.weight, std=0.1)
    clip = video(17, 16, 8)
    found = vae.encode(clip)
    assert torch.allclose(vae.encode(clip, chunk=3).mean, found.mean, atol=1e-5)
    assert torch.allclose(vae.decode(found.mean, chunk=2), vae.decode(found.mean), atol=1e-4)
    image = vae.encode(clip[:, :, :1])
    assert torch.allclose(found.mean[:, :, :1], image.mean, atol=1e-5)
    assert vae.decode(image.mean).shape == (1, 3, 1, 16, 8)


def test_more_channels_than_a_patch_has_numbers_and_a_2d_start_are_refused():
    with pytest.raises(ValueError, match="channels 769: a shortcut has at most 768"):
        VAESettings(channels=769, shortcut=True)
    with pytest.raises(ValueError, match="set shortcut: false"):
        load_2d(CausalVAE(VAESettings(**SMALL, norm="group")), {})
