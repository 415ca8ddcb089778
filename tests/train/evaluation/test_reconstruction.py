"""PSNR and SSIM against closed forms of their definitions, and window by window."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.evaluation.reconstruction import mean_colour, psnr, ssim

levels = st.floats(-1, 1, width=32)
fast = settings(max_examples=25, deadline=None, derandomize=True)


def frames(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@fast
@given(level=st.floats(-0.9, 0.9), step=st.floats(1e-3, 0.1))
def test_psnr_of_a_constant_error_is_the_range_over_it_in_decibels(level, step):
    one = torch.full((3, 12, 9), level)
    assert psnr(one, one + step).item() == pytest.approx(20 * math.log10(2 / step), abs=1e-2)


def test_psnr_is_of_each_frame_for_itself_and_bounded_where_frames_are_alike():
    one = frames(2, 4, 3, 16, 16)
    other = one.clone()
    other[0, 1] += 0.1
    found = psnr(one, other)
    assert found.shape == (2, 4)
    assert found[0, 1] < 30 and (found[0, [0, 2, 3]] == 100).all() and (found[1] == 100).all()


def test_what_lies_outside_of_the_range_is_shown_at_its_end():
    white = torch.ones(3, 16, 16)
    assert psnr(white, white * 3) == 100
    assert ssim(white, white * 3) == pytest.approx(1)


@fast
@given(one=levels, other=levels)
def test_ssim_of_two_plain_frames_is_the_comparison_of_their_light_alone(one, other):
    c1 = (0.01 * 2) ** 2
    expected = (2 * one * other + c1) / (one * one + other * other + c1)
    found = ssim(torch.full((3, 14, 12), one), torch.full((3, 14, 12), other)).item()
    assert found == pytest.approx(expected, abs=1e-5)


@fast
@given(share=st.floats(0.05, 1))
def test_ssim_of_a_paler_frame_without_light_is_what_its_definition_says_of_the_contrast(share):
    """Every window of stripes of +-a has a mean near 0 and the same variances, covariance = share x variance."""
    stripes = torch.ones(3, 16, 40) * torch.tensor([0.9, -0.9]).repeat(20)
    c2 = (0.03 * 2) ** 2
    variance = 0.81
    expected = (2 * share * variance + c2) / (variance * (1 + share**2) + c2)
    assert ssim(stripes, stripes * share).item() == pytest.approx(expected, abs=2e-3)


def test_ssim_is_what_its_definition_gives_window_by_window():
    one, other = frames(1, 15, 13, seed=1), frames(1, 15, 13, seed=2)
    other = 0.6 * one + 0.4 * other
    places = np.arange(-5, 6)
    weights = np.exp(-(places[:, None] ** 2 + places**2) / (2 * 1.5**2))
    weights /= weights.sum()
    a, b, found = one[0].double().numpy(), other[0].double().numpy(), []
    for y in range(15 - 10):
        for x in range(13 - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            m, n = (weights * p).sum(), (weights * q).sum()
            v, w, c = (
                (weights * (p - m) ** 2).sum(),
                (weights * (q - n) ** 2).sum(),
                (weights * (p - m) * (q - n)).sum(),
            )
            found.append((2 * m * n + 4e-4) * (2 * c + 36e-4) / ((m * m + n * n + 4e-4) * (v + w + 36e-4)))
    assert ssim(one, other).item() == pytest.approx(np.mean(found), abs=1e-6)


def test_ssim_is_one_for_the_same_alike_both_ways_and_falls_with_noise():
    one = frames(2, 3, 20, 20)
    noise = frames(2, 3, 20, 20, seed=9)
    little, much = ssim(one, one + 0.05 * noise), ssim(one, one + 0.5 * noise)
    assert torch.allclose(ssim(one, one), torch.ones(2))
    assert (little < 1).all() and (much < little).all()
    assert torch.allclose(ssim(one, noise), ssim(noise, one))
    with pytest.raises(ValueError, match="windows of 11 x 11"):
        ssim(one[..., :10], one[..., :10])


def test_the_mean_colour_is_that_of_a_clip_and_no_single_colour_is_nearer():
    video = frames(2, 3, 5, 8, 8)
    video[1] *= 0.2
    plain = mean_colour(video)
    assert plain.shape == video.shape
    assert torch.allclose(plain[1, :, 2, 3, 4], video[1].mean(dim=(1, 2, 3)))
    error = (plain - video).square().mean()
    for step in (0.01, -0.01):
        assert error < (plain + step - video).square().mean()
