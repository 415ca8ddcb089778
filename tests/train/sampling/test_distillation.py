"""Reflow straightens, and a distilled step lands where two of the teacher's do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.gaussian import MEAN, STD, flow, per_channel, predictor
from train.objectives.objective import Objective
from train.objectives.paths import PREDICTIONS, Path
from train.objectives.times import TimeLaw
from train.sampling.diffusion_samplers import SamplerSettings, sample_latents
from train.sampling.distillation import in_one_step, progressive_pair, reflow_pair, straightness


def test_what_is_learned_from_reflow_pairs_flows_straight():
    objective = Objective()
    mean, std = per_channel(MEAN), per_channel(STD)
    noise = torch.randn(4, 3, 1, 4, 4, dtype=torch.float64)
    clean, eps = reflow_pair(objective, predictor(objective), noise, steps=80)
    assert torch.equal(eps, noise)
    torch.testing.assert_close(clean, flow(objective, noise, mean, std), rtol=1e-3, atol=1e-3)

    def reflown(x, t, step):  # the exact velocity of the pairs x_0 = mean + std eps
        point = objective.at(t, x)
        found = (x - point.alpha * mean) / (point.alpha * std + point.sigma)
        return found - (mean + std * found)

    bent, straight = (straightness(objective, each, noise, steps=20) for each in (predictor(objective), reflown))
    assert bent > 0.05 and straight < 1e-20
    one = sample_latents(objective, reflown, noise, steps=1)
    torch.testing.assert_close(one, mean + std * noise)


def test_straightness_does_not_hang_on_the_spacing_of_steps():
    plain, shifted = (Objective(times=TimeLaw(shift=shift)) for shift in (1.0, 3.0))
    noise = torch.randn(4, 3, 1, 4, 4, dtype=torch.float64)
    one, other = (straightness(each, predictor(each), noise, steps=150) for each in (plain, shifted))
    assert one == pytest.approx(other, rel=0.05)
    with pytest.raises(ValueError, match="not of cosine"):
        straightness(Objective(Path("cosine"), "v"), predictor(plain), noise)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    path=st.sampled_from((Path("linear"), Path("cosine"), Path("linear_beta"))),
    prediction=st.sampled_from(PREDICTIONS),
    steps=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_one_step_of_a_distilled_student_is_two_of_its_teacher(path, prediction, steps, seed):
    objective, generator = Objective(path, prediction), torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 6, 3, 1, 2, 2, dtype=torch.float64, generator=generator)
    teacher = predictor(objective)
    noised, t, target, eps = progressive_pair(objective, teacher, clean, noise, steps, generator=generator)
    torch.testing.assert_close(objective.noised(target, eps, t), noised, rtol=1e-9, atol=1e-9)
    output = objective.target(target, eps, t)
    assert objective.loss(output, target, eps, t).max() == 0

    walk = objective.walk(2 * steps)
    for row in range(len(clean)):
        at = (walk - t[row]).abs().argmin().item()
        assert at % 2 == 0
        x = noised[row : row + 1]
        for now, then in ((at, at + 1), (at + 1, at + 2)):
            x0, e = objective.clean_and_noise(teacher(x, walk[now], 0), x, walk[now])
            x = objective.at(walk[then], x).alpha * x0 + objective.at(walk[then], x).sigma * e
        end = objective.at(walk[at + 2], x)
        one = end.alpha * target[row : row + 1] + end.sigma * eps[row : row + 1]
        torch.testing.assert_close(one, x, rtol=1e-8, atol=1e-8)


def test_a_student_of_half_the_steps_samples_as_its_teacher():
    """A student that has learned its pairs by heart, through the sampler that will use it."""
    objective, steps = Objective(Path("cosine"), "v"), 4
    teacher, noise = predictor(objective), torch.randn(3, 3, 1, 2, 2, dtype=torch.float64)

    def student(x, t, step):
        pair = in_one_step(objective, teacher, x, *objective.walk(2 * steps)[2 * step : 2 * step + 3])
        return objective.target(*pair, t)

    few = sample_latents(objective, student, noise, steps=steps, sampler=SamplerSettings("ddim"))
    many = sample_latents(objective, teacher, noise, steps=2 * steps, sampler=SamplerSettings("ddim"))
    torch.testing.assert_close(few, many, rtol=1e-9, atol=1e-9)
