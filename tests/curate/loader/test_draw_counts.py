"""Draws counted in closed form are those of the batches, one after another."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.loader.draw_counts import DrawCounts
from curate.loader.order import Population, SampleOrder


@st.composite
def orders(draw):
    """Orders of one to three buckets: plain, weighted (zeros too), drawn more or less often than they have samples."""
    found, first = [], 0
    for number in range(draw(st.integers(1, 3))):
        samples = draw(st.integers(1, 40))
        weights = draw(
            st.none() | st.lists(st.sampled_from([0.0, 0.1, 1.0, 2.5, 7.0]), min_size=samples, max_size=samples)
        )
        if weights is not None and not sum(weights):
            weights = None
        draws = samples if draw(st.booleans()) and weights is None else draw(st.integers(1, 90))
        cumulative = None if weights is None else np.cumsum(weights)
        found.append(Population(str(number), first, samples, draws, draw(st.integers(1, 9)), cumulative))
        first += samples
    block, window = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    return SampleOrder(found, draw(st.integers(0, 2**63)), block, window), first


@settings(max_examples=150, deadline=None)
@given(orders(), st.lists(st.integers(0, 60), min_size=1, max_size=4), st.data())
def test_counts_up_to_any_step_are_those_of_the_batches_before_it(made, steps, data):
    order, samples = made
    rows = np.array(data.draw(st.lists(st.integers(0, samples - 1), unique=True)), np.int64)
    drawn = [np.bincount(order.plan(step).rows, minlength=samples) for step in range(max(steps))]
    counts = DrawCounts(order, rows)
    for step in steps:
        expected = np.sum(drawn[:step], axis=0, dtype=np.int64) if step else np.zeros(samples, np.int64)
        assert counts.before(step).tolist() == expected[rows].tolist()


def test_a_million_steps_over_millions_of_samples_need_no_walk_through_the_steps():
    weights = np.random.default_rng(0).uniform(0, 3, 1_000_000)
    populations = [
        Population("plain", 0, 2_000_000, 2_000_000, 256),
        Population("weighted", 2_000_000, 1_000_000, 1_500_000, 64, np.cumsum(weights)),
    ]
    rows = np.arange(0, 3_000_000, 30_000)
    found = DrawCounts(SampleOrder(populations, 1), rows).before(1_000_000)
    shares = weights / weights.sum() * 1_500_000
    expected = np.array([1.0 if row < 2_000_000 else shares[row - 2_000_000] for row in rows])
    epochs = 1_000_000 / (2_000_000 / 256 + 1_500_000 / 64)
    assert np.abs(found - expected * epochs).max() < epochs + 2
