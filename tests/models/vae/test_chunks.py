"""Pieces of a clip: no activation larger than allowed, every latent in one of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.settings.vae import SIZES, VAESettings
from models.vae.causal_vae import CausalVAE
from models.vae.chunks import (
    MOST_ELEMENTS,
    choose_kernels_by_time,
    chunk_frames,
    elements_on,
    largest_activation,
    latents_of_pieces,
)
from models.vae.layers.causal_ops import frame_count, latent_count
from tests.models.vae.fake_gpu import Seen, fake_gpu, moved

NETWORKS = {
    **SIZES,
    **{f"variant {variant}": VAESettings(variant=variant, norm=norm) for variant in (1, 2, 3) for norm in ("rms",)},
    "wide inside": VAESettings(multipliers=(1, 4, 8, 8)),
    "narrow inside": VAESettings(multipliers=(4, 2, 1)),
}
CLIPS = [(81, 256, 256), (17, 240, 416), (1, 256, 256), (9, 64, 96)]
sides, counts = st.integers(1, 90).map(lambda n: 8 * n), st.integers(1, 80).map(frame_count)
quick = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_activation_on_a_gpu_is_larger_than_foretold_nor_much_smaller(name):
    with torch.device("meta"):
        vae = CausalVAE(NETWORKS[name]).eval()
    with fake_gpu():
        vae = moved(vae)
        for shape in CLIPS:
            with torch.no_grad(), Seen() as seen:
                latents = vae.encode(torch.empty(1, 3, *shape, device="cuda")).mean
            foretold = largest_activation(vae.settings, "encoder", *shape)
            assert seen.largest <= foretold
            assert shape[0] == 1 or foretold <= 1.35 * seen.largest, (shape, foretold / seen.largest)
            with torch.no_grad(), Seen() as seen:
                vae.decode(latents)
            foretold = largest_activation(vae.settings, "decoder", *shape)
            assert seen.largest <= foretold
            assert shape[0] == 1 or foretold <= 1.35 * seen.largest, (shape, foretold / seen.largest)


@quick
@given(name=st.sampled_from(sorted(NETWORKS)), part=st.sampled_from(("encoder", "decoder")), height=sides, width=sides)
def test_a_chunk_is_the_longest_whose_activations_are_small_enough(name, part, height, width):
    network = NETWORKS[name]
    chunk = chunk_frames(network, part, MOST_ELEMENTS, height, width)
    assert chunk >= 4 and chunk % 4 == 0
    assert largest_activation(network, part, chunk, height, width) <= MOST_ELEMENTS
    assert largest_activation(network, part, chunk + 4, height, width) > MOST_ELEMENTS


def test_the_published_clip_is_encoded_one_at_a_time_below_2_to_the_31():
    """Of four at a time the largest activation has 2.8 10^9 elements, beyond what indices of 32 bits reach."""
    one = largest_activation(SIZES["published"], "encoder", 81, 256, 256)
    assert one < 2**31 < 4 * one
    assert MOST_ELEMENTS // one == 3


@quick
@given(frames=counts, chunk=st.integers(4, 100))
def test_pieces_are_the_clip_and_none_is_longer_than_the_chunk(frames, chunk):
    latents = latent_count(frames)
    first, *others = latents_of_pieces(latents, chunk)
    assert first + sum(others) == latents and min(first, *others, first) > 0
    assert frame_count(first) <= chunk and all(4 * each <= chunk for each in others)
    assert len(set(others[:-1])) <= 1  # one shape in the middle, so that few graphs are compiled
    if frames <= chunk:
        assert others == []


def test_cudnn_times_its_kernels_for_a_gpu_alone():
    before = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = False
        choose_kernels_by_time(torch.device("cpu"))
        assert not torch.backends.cudnn.benchmark
        choose_kernels_by_time(torch.device("cuda"))
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before


def test_what_an_activation_may_have_depends_on_the_memory_of_the_card(monkeypatch):
    class Card:
        total_memory = 24 << 30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card)
    assert elements_on(torch.device("cuda")) == (24 << 30) // 64
    Card.total_memory = 1 << 40
    assert elements_on(torch.device("cuda")) == MOST_ELEMENTS < 2**31
