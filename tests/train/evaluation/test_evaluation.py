"""Distances and scores against their exact values for Gaussians and other known distributions."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from train.evaluation import (
    FewSamples,
    Gaussian,
    clipsim,
    extracted,
    frechet_distance,
    inception_score,
    kernel_distance,
    torchscript,
)

seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=20, deadline=None)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def exact(samples: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """The samples transformed to have exactly this mean and covariance."""
    centred = samples - samples.mean(0)
    own = torch.linalg.cholesky(centred.T @ centred / (len(samples) - 1))
    return torch.linalg.solve_triangular(own, centred.T, upper=False).T @ torch.linalg.cholesky(covariance).T + mean


def covariance(seed: int, size: int) -> torch.Tensor:
    root = normal(seed, size, size)
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


@few
@given(seeds, st.integers(1, 6))
def test_the_frechet_distance_of_gaussians_whose_covariances_commute_is_the_sum_over_their_axes(seed, size):
    """Rotated alike, axis by axis: (m1 - m2)^2 + (s1 - s2)^2."""
    turn = torch.linalg.qr(normal(seed, size, size)).Q
    means = normal(seed + 1, 2, size)
    deviations = normal(seed + 2, 2, size).abs() + 0.1
    sets = [
        exact(normal(seed + 3 + i, 64, size), turn @ means[i], turn @ torch.diag(deviations[i] ** 2) @ turn.T)
        for i in range(2)
    ]
    wanted = float((means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum())
    assert frechet_distance(*sets) == pytest.approx(wanted, rel=1e-8, abs=1e-8)


@few
@given(seeds, st.integers(1, 8))
def test_the_frechet_distance_holds_where_covariances_do_not_commute(seed, size):
    """Against the trace of the root of C1 C2 by its (real) eigenvalues, another way to the same number."""
    first, second = covariance(seed, size), covariance(seed + 1, size)
    means = normal(seed + 2, 2, size)
    sets = [exact(normal(seed + 3 + i, 64, size), means[i], each) for i, each in enumerate((first, second))]
    overlap = torch.linalg.eigvals(first @ second).real.clamp(min=0).sqrt().sum()
    wanted = float((means[0] - means[1]).square().sum() + first.trace() + second.trace() - 2 * overlap)
    assert frechet_distance(*sets) == pytest.approx(wanted, rel=1e-6, abs=1e-7)


@few
@given(seeds, st.integers(1, 6))
def test_the_frechet_distance_is_symmetric_zero_of_itself_and_the_same_however_features_come(seed, size):
    one, other = normal(seed, 40, size), 2 * normal(seed + 1, 50, size) + 1
    whole = frechet_distance(one, other)
    assert frechet_distance(other, one) == pytest.approx(whole, rel=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-7)
    assert frechet_distance(one.split(7), other.split(13)) == pytest.approx(whole, rel=1e-9)
    ranks = [Gaussian(part) for part in one.split(11)]
    for rank in ranks[1:]:
        ranks[0].join(rank)
    assert ranks[0].distance(Gaussian(other)) == pytest.approx(whole, rel=1e-9)


def test_a_mean_far_from_zero_costs_no_digits():
    one, other = normal(0, 200, 4), normal(1, 200, 4) + 0.5
    assert frechet_distance((one + 1e6).split(9), (other + 1e6).split(9)) == pytest.approx(
        frechet_distance(one, other), rel=1e-5
    )


def test_a_singular_covariance_gives_a_distance_and_a_warning():
    flat = torch.cat([normal(0, 30, 3), torch.zeros(30, 2, dtype=torch.float64)], dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frechet_distance(flat, flat + 1) == pytest.approx(5, rel=1e-9)
    with pytest.warns(FewSamples, match="4 samples with 5 features"):
        frechet_distance(flat[:4], flat)


@settings(max_examples=8, deadline=None)
@given(seeds, st.floats(-2, 2), st.floats(0.2, 2))
def test_the_kernel_distance_of_gaussians_is_that_of_their_first_three_moments(seed, mean, deviation):
    """With one feature k(x, y) = (xy + 1)^3, so that it is 3 d1^2 + 3 d2^2 + d3^2 of the differences in E x^k."""
    count = 4_000
    made = normal(seed, count, 1) * deviation + mean
    real = normal(seed + 1, count, 1)
    wanted_moments = [mean, deviation**2 + mean**2, mean**3 + 3 * mean * deviation**2]
    wanted = sum(weight * (moment - normal_moment) ** 2 for weight, moment, normal_moment in
                 zip((3, 3, 1), wanted_moments, (0, 1, 0), strict=True))  # fmt: skip
    found = kernel_distance(real, made, subsets=10, size=400, generator=rng(seed))
    assert found.value == pytest.approx(wanted, abs=6 * found.error + 0.2 * wanted + 0.1)
    assert (found.subsets, found.size) == (10, 400)


def test_the_kernel_distance_is_unbiased_where_few_samples_make_the_frechet_distance_large():
    kernel, frechet = [], []
    for trial in range(150):
        one, other = normal(trial, 60, 16), normal(10_000 + trial, 60, 16)
        kernel.append(kernel_distance(one, other).value)
        frechet.append(frechet_distance(one, other))
    broadcast_times = torch.tensor(kernel).std() / math.sqrt(len(kernel))
    assert abs(torch.tensor(kernel).mean()) < 4 * broadcast_times
    assert min(frechet) > 0.5


def test_the_kernel_distance_of_all_samples_is_the_sum_written_out():
    one, other = normal(0, 5, 3), normal(1, 4, 3)

    def k(x, y):
        return (float(x @ y) / 3 + 1) ** 3

    within = [
        sum(k(a, b) for a in s for b in s if a is not b) / (len(s) * (len(s) - 1)) for s in (list(one), list(other))
    ]
    across = sum(k(a, b) for a in one for b in other) / 20
    with pytest.warns(FewSamples):
        found = kernel_distance(one, other)
    assert found.value == pytest.approx(sum(within) - 2 * across)
    assert math.isnan(found.error) and found.subsets == 1


@pytest.mark.parametrize("classes", [2, 7])
def test_the_inception_score_goes_from_one_to_the_number_of_classes(classes):
    sure = 50 * F.one_hot(torch.arange(classes * 6) % classes).double()
    assert inception_score(sure)[0] == pytest.approx(classes)
    assert inception_score(sure[:1].expand(30, -1))[0] == pytest.approx(1)  # sure, but always of the same
    assert inception_score(torch.zeros(30, classes))[0] == pytest.approx(1)  # never sure
    mean, deviation = inception_score(sure, splits=3)
    assert (mean, deviation) == pytest.approx((classes, 0), abs=1e-9)


def test_the_inception_score_of_a_known_mixture():
    """Half the samples say (3/4, 1/4), half the other way: KL of each to (1/2, 1/2) is ln 2 - H(1/4)."""
    logits = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log().repeat(5, 1)
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert inception_score(logits)[0] == pytest.approx(math.exp(math.log(2) - entropy), rel=1e-6)


@few
@given(seeds)
def test_clipsim_is_the_mean_cosine_whatever_the_lengths(seed):
    texts = normal(seed, 3, 5)
    frames = torch.stack([texts, -texts, texts, texts], dim=1) * normal(seed + 1, 3, 4, 1).abs().add(0.1)
    assert torch.allclose(clipsim(frames, 7 * texts), torch.full((3,), 0.5, dtype=torch.float64))
    across = normal(seed + 2, 3, 5)
    across -= (across * texts).sum(1, keepdim=True) / texts.square().sum(1, keepdim=True) * texts
    assert clipsim(across[:, None], texts).abs().max() < 1e-9


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the I3D and Inception files are TorchScript
def test_features_come_from_any_callable_and_from_a_torchscript_file(tmp_path):
    class Means(torch.nn.Module):
        def forward(self, video: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return scale * video.mean((2, 3, 4))

    torch.jit.script(Means()).save(str(tmp_path / "means.pt"))
    videos = torch.rand(5, 3, 2, 4, 4, generator=rng(0))
    plain = extracted(lambda video: video.mean((2, 3, 4)), videos.split(2))
    assert plain.shape == (5, 3) and plain.dtype == torch.float64
    scaled = extracted(torchscript(tmp_path / "means.pt", scale=2.0), videos.split(2))
    assert torch.allclose(scaled, 2 * plain)
    (tmp_path / "letter.pt").write_text("Dear reader")
    with pytest.raises(ValueError, match=r"letter.pt is no TorchScript file: .+") as error:
        torchscript(tmp_path / "letter.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: frechet_distance(torch.zeros(1, 3), torch.zeros(9, 3)), "at least two"),
        (lambda: frechet_distance(torch.rand(9, 3), torch.rand(9, 4)), "features of 3 and of 4"),
        (lambda: frechet_distance(torch.full((9, 3), torch.nan), torch.rand(9, 3)), "9 of 9 samples are not finite"),
        (lambda: kernel_distance(torch.zeros(1, 3), torch.zeros(9, 3)), "at least two"),
        (lambda: kernel_distance(torch.rand(9, 3), torch.rand(9, 4)), "features of 3 and of 4"),
        (lambda: inception_score(torch.rand(3, 4), splits=5), "3 samples in 5 parts"),
        (lambda: clipsim(torch.rand(2, 3, 4), torch.rand(2, 5)), r"\(2, 3, 4\) and \(2, 5\)"),
        (lambda: clipsim(torch.zeros(2, 3, 4), torch.rand(2, 4)), "length 0"),
        (lambda: extracted(lambda batch: batch, []), "there is no batch"),
        (lambda: extracted(lambda batch: batch[:1], [torch.rand(3, 4)]), r"\(1, 4\): \(3, D\)"),
    ],
)
def test_what_has_no_figure_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
