"""Paths are the published ones, and predictions convert into each other without loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.objectives.paths import PREDICTIONS, Path, broadcast_times

PATHS = {
    "linear": Path("linear"),
    "cosine": Path("cosine"),
    "cosine without offset": Path("cosine", offset=0.0),
    "linear_beta": Path("linear_beta"),
}
paths = st.sampled_from(sorted(PATHS)).map(PATHS.get)
fast = settings(max_examples=60, deadline=None, derandomize=True)
inside = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)


@fast
@given(path=paths, start=st.sampled_from(PREDICTIONS), end=st.sampled_from(PREDICTIONS), seed=st.integers(0, 9999))
def test_every_prediction_converts_to_every_other_and_back(path, start, end, seed):
    generator = torch.Generator().manual_seed(seed)
    t = 0.002 + 0.996 * torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    clean, noise = torch.randn(2, 2, 6, 3, 4, 5, dtype=torch.float64, generator=generator)
    point = path.at(broadcast_times(t, clean))
    noised = point.alpha * clean + point.sigma * noise
    output = point.combine(clean, noise, start)
    found, eps = point.clean_and_noise(output, noised, start)
    converted = point.combine(found, eps, end)
    back = point.combine(*point.clean_and_noise(converted, noised, end), start)
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-9)
    torch.testing.assert_close(eps, noise, rtol=0, atol=1e-9)
    torch.testing.assert_close(back, output, rtol=1e-9, atol=1e-9)


@fast
@given(path=paths, prediction=st.sampled_from(PREDICTIONS), dtype=st.sampled_from((torch.float32, torch.float64)))
def test_a_token_at_time_zero_is_itself_and_nothing_is_nan_at_the_ends(path, prediction, dtype):
    clean, noise = torch.randn(2, 1, 3, 2, 2, 2, dtype=dtype)
    start, end = path.at(torch.zeros((), dtype=dtype)), path.at(torch.ones((), dtype=dtype))
    found, eps = start.clean_and_noise(start.combine(clean, noise, prediction), clean, prediction)
    torch.testing.assert_close(found, clean, rtol=1e-5, atol=1e-5)
    wild, wilder = end.clean_and_noise(torch.randn_like(clean), noise, prediction)
    assert all(each.isfinite().all() for each in (eps, wild, wilder))


@pytest.mark.parametrize("name", PATHS)
def test_rates_are_the_derivatives(name):
    t = inside.clone().requires_grad_()
    point = PATHS[name].at(t)
    for value, rate in ((point.alpha, point.alpha_rate), (point.sigma, point.sigma_rate)):
        (found,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
        torch.testing.assert_close(rate.detach(), found, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", PATHS)
def test_a_path_goes_from_data_to_noise(name):
    ends = PATHS[name].at(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.alpha[0] == pytest.approx(1) and ends.sigma[0] < 1e-9
    assert ends.alpha[1] < 0.01 and ends.sigma[1] == pytest.approx(1, abs=1e-4)
    assert (ends.alpha[1] < 1e-9) == PATHS[name].ends_in_noise
    assert (PATHS[name].at(inside).snr.diff() < 0).all()
    assert (ends.sigma_rate[0] < 10) == PATHS[name].starts_smoothly
    if name != "linear":
        point = PATHS[name].at(inside)
        torch.testing.assert_close(point.alpha.square() + point.sigma.square(), torch.ones_like(inside))


def test_linear_beta_is_the_schedule_of_ddpm():
    products = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    found = Path("linear_beta").at(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(found.alpha, products.sqrt(), rtol=0, atol=2e-3)


def test_cosine_is_the_schedule_of_improved_ddpm():
    level = ((inside + 0.008) / 1.008 * math.pi / 2).cos().square() / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(Path("cosine").at(inside).alpha.square(), level)


def test_velocity_is_noise_less_data_on_the_line_and_v_on_the_circle():
    clean, noise = torch.randn(2, 99, dtype=torch.float64)
    torch.testing.assert_close(Path("linear").at(inside).combine(clean, noise, "velocity"), noise - clean)
    circle = Path("cosine", offset=0.0).at(inside)
    torch.testing.assert_close(
        circle.combine(clean, noise, "velocity"), math.pi / 2 * circle.combine(clean, noise, "v")
    )


def test_times_spread_over_samples_or_tokens():
    latents, tokens = torch.zeros(2, 3, 4, 5, 6), torch.zeros(2, 7, 3)
    for t, x, shape in (
        (torch.zeros(()), latents, ()),
        (torch.zeros(2), latents, (2, 1, 1, 1, 1)),
        (torch.zeros(2, 4, 5, 6), latents, (2, 1, 4, 5, 6)),
        (torch.zeros(2, 4, 1, 1), latents, (2, 1, 4, 1, 1)),
        (torch.zeros(2, 7), tokens, (2, 7, 1)),
    ):
        assert broadcast_times(t, x).shape == shape
    for t in (torch.zeros(3), torch.zeros(2, 5, 4, 6), torch.zeros(2, 3, 4, 5, 6)):
        with pytest.raises(ValueError, match="one per sample or per token"):
            broadcast_times(t, latents)


def test_a_path_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"name 'sigmoid': there are linear, cosine, linear_beta"):
        Path("sigmoid")
    with pytest.raises(ValueError, match=r"beta from 20\.0 to 0\.1"):
        Path("linear_beta", beta_min=20.0, beta_max=0.1)
