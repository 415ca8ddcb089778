"""The order of samples: what holds for every number of samples, batch size, weight and seed."""

import math
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.loader.order import Population, SampleOrder
from curate.loader.permutation import Permutation, Shuffle

quick = settings(max_examples=25, deadline=None)


def populations(counts, batch_sizes):
    first, found = 0, []
    for number, (count, size) in enumerate(zip(counts, batch_sizes, strict=True)):
        found.append(Population(str(number), first, count, count, size))
        first += count
    return found


buckets = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 8)), min_size=1, max_size=4)


@quick
@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_a_permutation_gives_each_number_once_and_can_be_undone(n, by):
    numbers = np.arange(n)
    permutation = Permutation(n, by)
    there = permutation(numbers)
    assert np.array_equal(np.sort(there), numbers)
    assert np.array_equal(permutation.inverse(there), numbers)


@quick
@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(1, 50), st.integers(1, 20))
def test_a_shuffle_gives_each_number_once_whatever_blocks_and_windows_and_can_be_undone(n, by, block, window):
    shuffle = Shuffle(n, by, block, window)
    found = shuffle(np.arange(n))
    assert np.array_equal(np.sort(found), np.arange(n))
    assert np.array_equal(shuffle.inverse(found), np.arange(n))


@quick
@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(1, 50), st.integers(1, 20))
def test_so_many_samples_as_a_window_holds_come_from_no_more_than_two_windows_of_blocks(n, by, block, window):
    found = Shuffle(n, by, block, window)(np.arange(n))
    for begin in range(0, n, block * window):
        touched = np.unique(found[begin : begin + block * window] // block)
        assert len(touched) <= 2 * window


def test_a_permutation_spreads_evenly():
    n, turns = 16, 2000
    hits = np.zeros((n, n))
    for by in range(turns):
        hits[np.arange(n), Permutation(n, by)(np.arange(n))] += 1
    expected = turns / n
    assert ((hits - expected) ** 2 / expected).sum() < 330  # chi squared of 225 degrees of freedom, p = 1e-5


@quick
@given(buckets, st.integers(0, 2**31), st.integers(1, 3))
def test_every_sample_comes_once_in_each_epoch_of_its_bucket(sizes, seed, epochs):
    order = SampleOrder(populations(*zip(*sizes, strict=True)), seed, block=4, window=3)
    streams = {population.name: [] for population in order.populations}
    steps = order.epoch_start(epochs + 1)
    for step in range(steps):
        plan = order.plan(step)
        streams[plan.bucket_name] += zip(plan.places.tolist(), plan.rows.tolist(), strict=True)
    for population in order.populations:
        stream = sorted(streams[population.name])
        assert [place for place, _ in stream] == list(range(len(stream)))  # no place left out or taken twice
        rows = [row for _, row in stream]
        for begin in range(0, len(rows) - population.samples + 1, population.samples):
            once = rows[begin : begin + population.samples]
            assert sorted(once) == list(range(population.first, population.first + population.samples))
        assert (epochs + 1) * population.samples - len(rows) < population.batch_size  # what waits for the next epoch


@quick
@given(buckets, st.integers(0, 2**31), st.integers(0, 60))
def test_a_step_does_not_depend_on_the_steps_before_it(sizes, seed, step):
    made = populations(*zip(*sizes, strict=True))
    used = SampleOrder(made, seed, block=4, window=3)
    for before in range(step):
        used.plan(before)
    one, other = used.plan(step), SampleOrder(made, seed, block=4, window=3).plan(step)
    assert (one.epoch, one.bucket) == (other.epoch, other.bucket)
    assert np.array_equal(one.rows, other.rows)


@quick
@given(buckets, st.integers(0, 100))
def test_steps_and_epochs_agree(sizes, step):
    order = SampleOrder(populations(*zip(*sizes, strict=True)), 0)
    epoch = order.epoch_of(step)
    assert order.epoch_start(epoch) <= step < order.epoch_start(epoch + 1)


@quick
@given(st.integers(20, 500), st.integers(0, 2**31))
def test_each_epoch_and_each_seed_has_another_order(n, seed):
    def rows(seed, epoch):
        return tuple(SampleOrder([Population("a", 0, n, n, n)], seed).plan(epoch).rows.tolist())

    assert len({rows(seed, 0), rows(seed, 1), rows(seed, 2), rows(seed + 1, 0)}) == 4


@quick
@given(st.lists(st.one_of(st.just(0.0), st.floats(0.01, 10)), min_size=1, max_size=40), st.integers(0, 2**31))
def test_weights_are_kept_to_the_next_whole_number_in_every_epoch(weights, seed):
    if not any(weights):
        weights = [*weights, 1.0]
    draws = 3 * len(weights)
    order = SampleOrder([Population("a", 5, len(weights), draws, 1, np.cumsum(weights))], seed, block=4, window=3)
    for epoch in range(2):
        counts = Counter(int(order.plan(epoch * draws + step).rows[0]) - 5 for step in range(draws))
        for row, weight in enumerate(weights):
            share = draws * weight / sum(weights)
            assert math.floor(share - 1e-6) <= counts[row] <= math.ceil(share + 1e-6)
            assert weight or not counts[row]


def test_weights_hold_over_many_epochs_too():
    weights = np.array([0.3, 0.7, 1.0])
    order = SampleOrder([Population("a", 0, 3, 3, 3, np.cumsum(weights))], seed=4)
    counts = Counter(row for step in range(300) for row in order.plan(step).rows.tolist())
    for row, weight in enumerate(weights):
        assert abs(counts[row] / 900 - weight / 2) < 0.02


def test_buckets_are_interleaved_as_their_sizes_are():
    order = SampleOrder([Population("a", 0, 4000, 4000, 10), Population("b", 4000, 1000, 1000, 10)], seed=1)
    names = [order.plan(step).bucket_name for step in range(500)]
    for begin in range(0, 500, 50):
        assert 7 <= names[begin : begin + 50].count("b") <= 13
