"""Targets and weights of the loss are the published ones, and every published method is a setting."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.gaussian import GaussianNetwork, per_channel
from train.objectives.objective import PUBLISHED, Objective
from train.objectives.paths import PREDICTIONS, Path
from train.objectives.times import TimeLaw

fast = settings(max_examples=40, deadline=None, derandomize=True)
paths = st.sampled_from((Path("linear"), Path("cosine"), Path("linear_beta")))
predictions = st.sampled_from(PREDICTIONS)


def made(shape=(2, 3, 2, 4, 4)):
    return torch.randn(2, *shape, dtype=torch.float64)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_setting_survives_json(name):
    assert Objective.from_dict(json.loads(json.dumps(PUBLISHED[name].to_dict()))) == PUBLISHED[name]


def test_settings_that_there_are_not_are_named():
    assert Objective.from_dict({"path": "cosine", "prediction": "v", "times": "logit_normal"}) == Objective(
        Path("cosine"), "v", times=TimeLaw("logit_normal")
    )
    for values, said in (
        ({"pth": "cosine"}, "unknown setting pth: there are path"),
        ({"path": {"name": "cosine", "ofset": 1}}, "unknown setting path.ofset: there are name"),
        ({"prediction": "noise"}, "prediction 'noise': there are eps"),
        ({"weighting": "snr"}, "weighting 'snr': there are uniform"),
        ({"gamma": 0}, "gamma 0"),
        ({"times": "normal"}, "times.name 'normal': there are uniform"),
        ({"times": {"shift": -1.0}}, "times.shift -1.0"),
    ):
        with pytest.raises(ValueError, match=said):
            Objective.from_dict(values)


@fast
@given(path=paths, prediction=predictions, seed=st.integers(0, 999))
def test_least_squares_on_the_target_finds_the_exact_denoiser(path, prediction, seed):
    objective = Objective(path, prediction)
    generator = torch.Generator().manual_seed(seed)
    mean, std = per_channel((0.7,), 2), per_channel((0.5,), 2)
    t = 0.1 + 0.8 * torch.rand((), dtype=torch.float64, generator=generator)
    clean = mean + std * torch.randn(4000, 1, dtype=torch.float64, generator=generator)
    noise = torch.randn(4000, 1, dtype=torch.float64, generator=generator)
    noised, target = objective.noised(clean, noise, t), objective.target(clean, noise, t)
    exact = GaussianNetwork(objective, std)(noised, t, mean)
    design = torch.cat([noised, torch.ones_like(noised)], 1)
    slope, offset = torch.linalg.lstsq(design, target - exact).solution.flatten()  # of what the exact one left
    left = (target - exact).std() / math.sqrt(4000)
    assert abs(slope) * noised.std() < 5 * left + 1e-12
    assert abs(slope * noised.mean() + offset) < 5 * left + 1e-12


@fast
@given(path=paths, prediction=predictions, weighting=st.sampled_from(("uniform", "min_snr")))
def test_the_right_output_costs_nothing_and_any_other_something(path, prediction, weighting):
    objective, (clean, noise), t = Objective(path, prediction, weighting), made(), torch.tensor([0.3, 0.8])
    target = objective.target(clean, noise, t)
    assert objective.loss(target, clean, noise, t).tolist() == [0, 0]
    assert (objective.loss(target + 0.1, clean, noise, t) > 0).all()


@fast
@given(path=paths, start=predictions, end=predictions)
def test_min_snr_weighs_one_error_alike_whatever_is_predicted(path, start, end):
    (clean, noise), t = made(), torch.tensor([0.2, 0.7], dtype=torch.float64)
    one, other = Objective(path, start, "min_snr"), Objective(path, end, "min_snr")
    noised, output = one.noised(clean, noise, t), torch.randn_like(clean)
    converted = one.convert(output, noised, t, start, end)
    torch.testing.assert_close(one.loss(output, clean, noise, t), other.loss(converted, clean, noise, t))


def test_min_snr_is_as_published_for_each_prediction():
    path, gamma = Path("cosine"), 5.0
    point = path.at(torch.linspace(0.01, 0.99, 50, dtype=torch.float64))
    least = point.snr.clamp(max=gamma)
    for prediction, expected in (("x0", least), ("eps", least / point.snr), ("v", least / (point.snr + 1))):
        torch.testing.assert_close(Objective(path, prediction, "min_snr", gamma).weight(point), expected)


def test_uniform_weighs_eps_and_scaled_score_alike():
    (clean, noise), t = made(), torch.tensor([0.2, 0.7])
    eps, score = (Objective(Path("linear_beta"), each) for each in ("eps", "score"))
    noised, output = eps.noised(clean, noise, t), torch.randn_like(clean)
    converted = eps.convert(output, noised, t, "eps", "score")
    torch.testing.assert_close(eps.loss(output, clean, noise, t), score.loss(converted, clean, noise, t))
    plain = (output - noise).square().flatten(1).mean(1)
    torch.testing.assert_close(eps.loss(output, clean, noise, t), plain)


@fast
@given(path=paths, prediction=predictions, weighting=st.sampled_from(("uniform", "min_snr")), double=st.booleans())
def test_known_tokens_cost_nothing_and_train_nothing(path, prediction, weighting, double):
    objective = Objective(path, prediction, weighting)
    clean, noise = made().to(torch.float64 if double else torch.float32)
    known = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    known[:, 0] = True
    t = torch.where(known, 0.0, torch.tensor([0.3, 0.8]).reshape(-1, 1, 1, 1))
    output = torch.randn_like(clean).requires_grad_()
    losses = objective.loss(output, clean, noise, t, known)
    losses.sum().backward()
    assert output.grad[:, :, 0].eq(0).all() and output.grad[:, :, 1].ne(0).all()
    alone = objective.loss(output[:, :, 1:], clean[:, :, 1:], noise[:, :, 1:], t[:, 1:])
    torch.testing.assert_close(losses, alone)
    assert torch.equal(objective.noised(clean, noise, t)[:, :, 0], clean[:, :, 0])


def test_a_bf16_output_is_judged_in_float32():
    clean, noise = made().bfloat16()
    losses = Objective().loss(torch.zeros_like(clean), clean, noise, torch.tensor([0.3, 0.8]))
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, (noise.float() - clean.float()).square().flatten(1).mean(1))


def test_times_stay_where_the_prediction_is_defined_and_repeat_by_seed():
    for path, prediction in itertools.product((Path("linear"), Path("cosine"), Path("linear_beta")), PREDICTIONS):
        objective = Objective(path, prediction, times=TimeLaw("logit_normal", std=30.0))
        t = objective.draw_times(500, generator=torch.Generator().manual_seed(3))
        assert torch.equal(t, objective.draw_times(500, generator=torch.Generator().manual_seed(3)))
        assert objective.earliest <= float(t.min()) + 1e-7 and float(t.max()) <= objective.latest + 1e-7
        if prediction in ("eps", "score") and path.ends_in_noise:
            assert objective.at(torch.tensor(objective.latest), t).alpha > 5e-4
        clean, noise = made((500, 1, 1, 1, 1))
        assert objective.target(clean, noise, t).abs().max() < 1e3 or prediction == "score"


def test_logit_normal_times_have_its_quantiles():
    law = TimeLaw("logit_normal", mean=0.4, std=0.8)
    t = law.quantile((torch.arange(20000, dtype=torch.float64) + 0.5) / 20000)
    logits = torch.logit(t)
    assert logits.mean().item() == pytest.approx(0.4, abs=1e-6)
    assert logits.std().item() == pytest.approx(0.8, rel=1e-3)


@fast
@given(shift=st.floats(0.2, 8), base=st.integers(1, 5000), tokens=st.integers(1, 50000))
def test_more_tokens_shift_the_signal_to_noise_ratio_by_their_number(shift, base, tokens):
    t = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    moved = TimeLaw(shift=shift, base_tokens=base).shifted(t, tokens)
    path = Path("linear")
    ratio = path.at(t).snr / path.at(moved).snr
    torch.testing.assert_close(ratio, torch.full_like(ratio, shift**2 * tokens / base))


def test_a_law_by_tokens_asks_for_them():
    with pytest.raises(ValueError, match="say how many tokens"):
        Objective(times=TimeLaw(base_tokens=256)).draw_times(2)


def test_a_walk_goes_down_to_zero_and_validation_times_are_equidistant():
    walk = Objective(times=TimeLaw(shift=3.0)).walk(10)
    assert walk[0] == 1 and walk[-1] == 0 and (walk.diff() < 0).all() and walk.dtype == torch.float64
    assert walk[5] == pytest.approx(0.75)
    assert Objective(prediction="eps").walk(10)[0] == Objective(prediction="eps").latest == 0.999
    assert Objective().validation_times(10).tolist() == pytest.approx([0.05 + 0.1 * each for each in range(10)])
