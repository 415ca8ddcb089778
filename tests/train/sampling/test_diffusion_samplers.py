"""Every sampler, with the exact denoiser of a Gaussian, reaches its closed-form mean and variance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.gaussian import MEAN, STD, flow, per_channel, predictor
from train.objectives.masks import latents_mask
from train.objectives.objective import PUBLISHED, Objective
from train.objectives.paths import PREDICTIONS, Path
from train.sampling.diffusion_samplers import SamplerSettings, sample_latents

fast = settings(max_examples=30, deadline=None, derandomize=True)
PATHS = {
    "linear": Path("linear"),
    "cosine": Path("cosine"),
    "circle": Path("cosine", offset=0.0),
    "linear_beta": Path("linear_beta"),
}
SAMPLERS = {
    "ddpm": SamplerSettings("ddpm"),
    "ddim": SamplerSettings("ddim"),
    "ddim eta 0.6": SamplerSettings("ddim", eta=0.6),
    "euler": SamplerSettings("euler"),
    "heun": SamplerSettings("heun"),
    "euler_maruyama": SamplerSettings("euler_maruyama"),
    "euler_maruyama half": SamplerSettings("euler_maruyama", strength=0.5),
    "euler_maruyama reverse": SamplerSettings("euler_maruyama", diffusion="reverse"),
}
PAIRS = [
    (path, name)
    for path in PATHS
    for name in SAMPLERS
    if name != "euler_maruyama reverse" or not PATHS[path].ends_in_noise
]


def moments(objective, sampler, steps):
    """Exact mean and variance (C,) of a sampler's results, started from x_t's distribution at its first time.

    Every step is affine in x and in its noise, so unit impulses determine it: row 0 has none, row 1 one standard
    deviation of x_t, row 2 + k a unit in the k-th draw.
    """
    drawn = []

    def impulse(x):
        z = torch.zeros_like(x)
        z[2 + len(drawn)] = 1
        drawn.append(z)
        return z

    start = objective.at(torch.tensor(objective.latest), per_channel(MEAN))
    x = (start.alpha * per_channel(MEAN)).repeat(steps + 2, 1, 1, 1, 1)
    x[1] += (start.alpha * per_channel(STD)).square().add(start.sigma.square()).sqrt()[0]
    found = sample_latents(objective, predictor(objective), x, steps=steps, sampler=sampler, draw=impulse)
    found = found.flatten(1)
    return found[0], (found[1:] - found[0]).square().sum(0)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "name"), PAIRS)
def test_a_sampler_reaches_the_mean_and_variance_of_the_data(path, name):
    """At 300 steps within 8 % (ddpm needs most), and what is left shrinks with the step: its limit is the truth."""
    objective = Objective(PATHS[path], "eps")
    mean, std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
    errors = []
    for steps in (150, 300):
        found, variance = moments(objective, SAMPLERS[name], steps)
        errors.append(torch.cat([(found - mean) / std, variance / std.square() - 1]))
    assert errors[1].abs().max() < 0.08
    assert (2 * errors[1] - errors[0]).abs().max() < (0.02 if path == "linear_beta" else 0.006)


@pytest.mark.parametrize("name", ("ddpm", "euler_maruyama"))
def test_the_noise_of_stochastic_samplers_is_new_in_every_step_and_element(name):
    objective = PUBLISHED["rectified_flow"]
    noise = torch.randn(4000, len(MEAN), 1, 1, 2)
    found = sample_latents(objective, predictor(objective), noise, steps=150, sampler=SAMPLERS[name])
    assert found.dtype == torch.float32
    flat = ((found - per_channel(MEAN)) / per_channel(STD)).flatten(1)
    assert flat.mean(0).abs().max() < 0.07
    assert (flat.T.cov() - torch.eye(6)).abs().max() < 0.15


@fast
@given(
    path=st.sampled_from(sorted(PATHS)),
    prediction=st.sampled_from(PREDICTIONS),
    steps=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_ddim_with_eta_1_is_ddpm(path, prediction, steps, seed):
    objective = Objective(PATHS[path], prediction)
    noise = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    one, other = (
        sample_latents(
            objective,
            predictor(objective),
            noise,
            steps=steps,
            sampler=each,
            generator=torch.Generator().manual_seed(seed),
        )
        for each in (SamplerSettings("ddim", eta=1.0), SamplerSettings("ddpm"))
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@fast
@given(path=st.sampled_from(sorted(PATHS)), name=st.sampled_from(sorted(SAMPLERS)), seed=st.integers(0, 99))
def test_it_does_not_matter_which_prediction_the_network_makes(path, name, seed):
    if (path, name) not in PAIRS:
        return
    noise = torch.randn(1, 3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = []
    for prediction in ("x0", "v"):  # which share the ends of their walk
        objective, generator = Objective(PATHS[path], prediction), torch.Generator().manual_seed(seed)
        found.append(
            sample_latents(objective, predictor(objective), noise, steps=8, sampler=SAMPLERS[name], generator=generator)
        )
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", ("linear", "circle"))
def test_heun_converges_with_the_square_of_the_step_and_euler_with_the_step(path):
    objective = Objective(PATHS[path], "v")
    noise = torch.randn(1, 3, 1, 4, 4, dtype=torch.float64)
    exact = flow(objective, noise, per_channel(MEAN), per_channel(STD))
    error = {
        (method, steps): (
            sample_latents(objective, predictor(objective), noise, steps=steps, sampler=SamplerSettings(method)) - exact
        ).abs().max().item()
        for method in ("euler", "heun")
        for steps in (40, 80)
    }  # fmt: skip
    assert 1.7 < error["euler", 40] / error["euler", 80] < 2.3
    assert 3.4 < error["heun", 40] / error["heun", 80] < 4.6
    assert error["heun", 40] < error["euler", 80] / 4  # for as many calls of the network


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_the_denoiser_itself(name):
    objective = Objective(Path("linear_beta"), "eps")
    noise = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    output = predictor(objective)(noise, torch.ones(2, dtype=torch.float64), 0)
    clean, _ = objective.clean_and_noise(output, noise, torch.ones(2, dtype=torch.float64))
    found = sample_latents(objective, predictor(objective), noise, steps=1, sampler=SAMPLERS[name])
    torch.testing.assert_close(found, clean, rtol=1e-12, atol=1e-12)


def test_a_network_in_bf16_is_told_float32_times_and_progress_is_heard():
    seen, heard = [], []

    def predict(x, t, step):
        seen.append((x.dtype, t.dtype, tuple(t.shape), step))
        return x.bfloat16()

    found = sample_latents(
        Objective(), predict, torch.randn(2, 3, 1, 2, 2), steps=3, progress=lambda *done: heard.append(done)
    )
    assert found.dtype == torch.float32
    assert seen == [(torch.float32, torch.float32, (2,), step) for step in range(3)]
    assert heard == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_known_tokens_keep_their_clean_value_and_time_zero(name, prediction):
    objective = Objective(Path("linear_beta"), prediction)
    clean, noise = torch.randn(2, 2, 3, 4, 2, 2)
    known = latents_mask((4, 2, 2), first=1, last=1)

    exact = predictor(objective)

    def predict(x, t, step):
        assert t.shape == (2, 4, 2, 2) and x.dtype == t.dtype == torch.float32
        assert (t[:, known] == 0).all() and (t[:, ~known] > 0).all()
        assert torch.equal(x[:, :, known], clean[:, :, known])
        return torch.where(known, torch.nan, exact(x, t, step).float())  # what it says of given tokens is not heard

    found = sample_latents(objective, predict, noise, steps=6, sampler=SAMPLERS[name], known=known, clean=clean)
    assert torch.equal(found[:, :, known], clean[:, :, known])
    assert found.isfinite().all() and not torch.equal(found[:, :, ~known], noise[:, :, ~known])


@pytest.mark.parametrize(("name", "steps"), (("ddpm", 250), ("heun", 30)))
@pytest.mark.parametrize("given_first", (True, False))
def test_what_is_made_follows_what_is_given(name, steps, given_first):
    """Two latents of correlation 0.8: given one, the other is N(0.8 x, 0.36), which only the given value tells."""
    objective, correlation, value = Objective(Path("cosine"), "v"), 0.8, 1.5
    at, other = (0, 1) if given_first else (1, 0)
    known = latents_mask((2, 1, 1), first=int(given_first), last=int(not given_first))

    def predict(x, t, step):
        point = objective.at(t, x)
        prior = correlation * x[:, :, [at]]
        alpha, sigma = point.alpha[:, :, [other]], point.sigma[:, :, [other]]
        variance = 1 - correlation**2
        gain = alpha * variance / (alpha.square() * variance + sigma.square())
        found = x.clone()
        found[:, :, [other]] = prior + gain * (x[:, :, [other]] - alpha * prior)
        return point.combine(found, (x - point.alpha * found) / point.sigma, "v")

    noise = torch.randn(6000, 1, 2, 1, 1, dtype=torch.float64)
    found = sample_latents(
        objective,
        predict,
        noise,
        steps=steps,
        sampler=SamplerSettings(name),
        known=known,
        clean=torch.full_like(noise, value),
    )[:, 0, other]
    assert found.mean().item() == pytest.approx(correlation * value, abs=0.03)
    assert found.var().item() == pytest.approx(1 - correlation**2, rel=0.06)


def test_tokens_in_a_row_are_sampled_as_well():
    objective = Objective()
    known = torch.tensor([[True, False, False, True]])
    clean, noise = torch.randn(2, 2, 4, 3, dtype=torch.float64)
    times = []

    def predict(x, t, step):
        times.append(t)
        return noise - clean

    found = sample_latents(objective, predict, noise, steps=4, known=known, clean=clean)
    torch.testing.assert_close(found, clean)
    assert all(t.shape == (2, 4) and (t[:, known[0]] == 0).all() for t in times)


def test_what_cannot_be_sampled_is_refused():
    noise = torch.randn(1, 3, 2, 2, 2)
    for error, settings_of in (
        ("known tokens need both", {"known": latents_mask((2, 2, 2), first=1)}),
        ("clean values of shape", {"known": latents_mask((2, 2, 2), first=1), "clean": noise[:, :1]}),
        ("a mask of shape", {"known": latents_mask((3, 2, 2), first=1), "clean": noise}),
        ("use diffusion sigma", {"sampler": SamplerSettings("euler_maruyama", diffusion="reverse")}),
        ("0 steps", {"steps": 0}),
    ):
        with pytest.raises(ValueError, match=error):
            sample_latents(Objective(), lambda x, t, step: x, noise, **settings_of)
    with pytest.raises(ValueError, match="float32 or wider"):
        sample_latents(Objective(), lambda x, t, step: x, noise.bfloat16())
    for wrong in ({"method": "dpm"}, {"eta": 1.5}, {"diffusion": "none"}, {"strength": -1.0}):
        with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
            SamplerSettings(**wrong)
