"""Guidance changes nothing at scale 1 and every channel otherwise, and its result has a closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.gaussian import MEAN, STD, GaussianNetwork, flow, per_channel
from train.objectives.masks import latents_mask
from train.objectives.objective import Objective
from train.objectives.paths import PREDICTIONS, Path
from train.sampling.diffusion_samplers import SamplerSettings, sample_latents
from train.sampling.guidance import Guidance, guided, thresholded

fast = settings(max_examples=30, deadline=None, derandomize=True)
paths = st.sampled_from((Path("linear"), Path("cosine"), Path("linear_beta")))
WANTED, EMPTY = {"mean": per_channel(MEAN)}, {"mean": per_channel((0.5, -0.5, 0.0))}


def network_for(objective):
    return GaussianNetwork(objective, per_channel(STD))


def at_half():
    return torch.randn(2, 3, 2, 4, 4, dtype=torch.float64), torch.tensor([0.5, 0.7], dtype=torch.float64)


@fast
@given(path=paths, prediction=st.sampled_from(PREDICTIONS), negative=st.sampled_from((None, EMPTY)))
def test_scale_1_changes_no_bit_and_costs_no_call(path, prediction, negative):
    objective, (x, t) = Objective(path, prediction), at_half()
    network = network_for(objective)
    found = guided(network, objective, Guidance(1.0), WANTED, negative)(x, t, 0)
    assert network.calls == 1
    assert torch.equal(found, network(x, t, **WANTED))


@fast
@given(path=paths, prediction=st.sampled_from(PREDICTIONS), scale=st.floats(0, 20).filter(lambda s: abs(s - 1) > 1e-3))
def test_any_other_scale_moves_every_channel_by_as_much(path, prediction, scale):
    objective, (x, t) = Objective(path, prediction), at_half()
    network = network_for(objective)
    found = guided(network, objective, Guidance(scale), WANTED, EMPTY)(x, t, 0)
    one, other = network(x, t, **WANTED), network(x, t, **EMPTY)
    moved = (found - one).movedim(1, 0).flatten(1)
    assert (moved != 0).all()
    torch.testing.assert_close(moved, ((scale - 1) * (one - other)).movedim(1, 0).flatten(1), rtol=1e-7, atol=1e-9)


@fast
@given(path=paths, start=st.sampled_from(PREDICTIONS), end=st.sampled_from(PREDICTIONS), limited=st.booleans())
def test_guidance_is_the_same_whatever_is_predicted(path, start, end, limited):
    x, t = at_half()
    guidance = Guidance(4.0, threshold=0.8 if limited else None)
    found = []
    for prediction in (start, end):
        objective = Objective(path, prediction)
        output = guided(network_for(objective), objective, guidance, WANTED, EMPTY)(x, t, 0)
        found.append(objective.clean_and_noise(output, x, t)[0])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", (0.0, 1.0, 3.0))
def test_guided_samples_lie_as_far_beyond_as_the_scale_says(scale):
    """Two Gaussians of one variance: guided from one mean to the other is the Gaussian around their extrapolation."""
    objective = Objective(Path("linear"), "velocity")
    predict = guided(network_for(objective), objective, Guidance(scale), WANTED, EMPTY)
    noise = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    found = sample_latents(objective, predict, noise, steps=60, sampler=SamplerSettings("heun"))
    mean = EMPTY["mean"] + scale * (WANTED["mean"] - EMPTY["mean"])
    torch.testing.assert_close(found, flow(objective, noise, mean, per_channel(STD)), rtol=2e-3, atol=2e-3)


def test_a_negative_prompt_replaces_what_it_names_and_nothing_else():
    heard = []

    def network(x, t, text, fps):
        heard.append((text, fps))
        return torch.full_like(x, float(len(text)))

    predict = guided(network, Objective(), Guidance(3.0), {"text": "a cat", "fps": 24}, {"text": "blurred"})
    found = predict(torch.zeros(1, 1, 1, 1, 1), torch.ones(1), 0)
    assert heard == [("a cat", 24), ("blurred", 24)]
    assert found.item() == 7 + 3 * (5 - 7)


def test_oscillating_guidance_is_steady_then_takes_turns():
    guidance = Guidance(15.0, low=1.0, steady=3)
    assert [guidance.scale_at(step) for step in range(8)] == [15, 15, 15, 1, 15, 1, 15, 1]
    objective, (x, t) = Objective(), at_half()
    network = network_for(objective)
    predict = guided(network, objective, guidance, WANTED, EMPTY)
    outputs = [predict(x, t, step) for step in range(5)]
    assert network.calls == 2 + 2 + 2 + 1 + 2
    assert torch.equal(outputs[3], network(x, t, **WANTED))
    assert torch.equal(outputs[0], outputs[4]) and not torch.equal(outputs[3], outputs[4])


def test_a_sampler_counts_the_steps_that_guidance_oscillates_by():
    objective, steps = Objective(), []
    noise = torch.randn(1, 3, 1, 2, 2)
    sample_latents(
        objective,
        lambda x, t, step: steps.append(step) or torch.zeros_like(x),
        noise,
        steps=3,
        sampler=SamplerSettings("heun"),
    )
    assert steps == [0, 0, 1, 1, 2]


@fast
@given(quantile=st.floats(0.5, 1), limit=st.floats(0.5, 4), scale=st.floats(0.1, 20), seed=st.integers(0, 99))
def test_dynamic_thresholding_keeps_to_its_limit_and_to_itself(quantile, limit, scale, seed):
    clean = scale * torch.randn(3, 2, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    found = thresholded(clean, quantile, limit)
    assert found.abs().max() <= limit * (1 + 1e-6) or torch.equal(found, clean.clamp(-limit, limit))
    for each, before in zip(found, clean, strict=True):
        alone = thresholded(before[None], quantile, limit)[0]
        assert torch.equal(each, alone)  # one sample's extremes are not another's
    small = clean / clean.abs().max() * limit * 0.99
    torch.testing.assert_close(thresholded(small, quantile, limit), small)


def test_a_given_frame_does_not_count_for_the_threshold():
    objective, threshold = Objective(Path("linear_beta"), "x0"), Guidance(1.0, threshold=1.0)
    x = torch.full((1, 1, 2, 2, 2), 0.5, dtype=torch.float64)
    times = torch.where(latents_mask((2, 2, 2), first=1), 0.0, 0.5)[None].double()

    def network(x, t):
        return torch.full_like(x, 0.8).masked_fill(t[:, None] == 0, 1e3)

    found = guided(network, objective, threshold, {})(x, times, 0)
    torch.testing.assert_close(found, torch.where(times[:, None] == 0, x, 0.8 * torch.ones_like(x)))


def test_thresholded_guidance_keeps_samples_in_range():
    objective = Objective(Path("cosine"), "v")
    noise = torch.randn(2, 3, 1, 8, 8)
    loud = guided(network_for(objective), objective, Guidance(12.0), WANTED, EMPTY)
    held = guided(network_for(objective), objective, Guidance(12.0, threshold=0.9, limit=2.0), WANTED, EMPTY)
    assert sample_latents(objective, loud, noise, steps=10, sampler=SamplerSettings("ddim")).abs().max() > 10
    assert sample_latents(objective, held, noise, steps=10, sampler=SamplerSettings("ddim")).abs().max() <= 2.0001


def test_guidance_that_cannot_be_is_refused():
    objective = Objective()
    with pytest.raises(ValueError, match="needs the empty or a negative prompt"):
        guided(network_for(objective), objective, Guidance(2.0), WANTED)
    with pytest.raises(ValueError, match="negative condition texts: there are mean"):
        guided(network_for(objective), objective, Guidance(2.0), WANTED, {"texts": 1})
    for wrong in ({"scale": -1.0}, {"scale": float("nan")}, {"low": -2.0}, {"threshold": 95.0}, {"limit": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Guidance(**wrong)
