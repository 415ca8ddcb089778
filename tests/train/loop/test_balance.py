"""Balanced batch sizes: steps take alike long, within the budget, whatever a clip's cost is."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.train.runs import config
from train.data.batch_sizes import Balance, batch_sizes, clip_seconds
from train.loop.balance import Timed, balanced, fitted_power, said, spread

TOKENS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(16, 30_000), min_size=1)
POWERS = st.floats(0.7, 2.0)
PLENTY = 10**9


def timed(tokens, power, seconds=1e-4):
    """As `spread` chooses them, one for each number of tokens."""
    different = {count: name for name, count in tokens.items()}
    return [Timed(name, count, 3, 3 * seconds * count**power) for count, name in different.items()]


def sizes_for(lengths, power, ranks=1, update_s=0.0, accumulate=1, samples=PLENTY, **budget):
    """Sizes for clips of these lengths, whose measured cost follows the power exactly."""
    chosen = config(batch_size="balanced", balance=budget, accumulate=accumulate)
    there = dict.fromkeys(lengths, samples)
    return balanced(chosen, lengths, there, timed(lengths, power), update_s, ranks)


@given(TOKENS, POWERS)
def test_the_power_of_a_clips_cost_is_found(tokens, power):
    found = fitted_power(timed(tokens, power))
    assert found == pytest.approx(power if len({*tokens.values()}) > 1 else 1.0, abs=1e-6)


@given(st.lists(st.integers(16, 30_000), min_size=2, max_size=4, unique=True), POWERS, st.integers(16, 30_000))
def test_clips_that_were_not_timed_cost_a_power_of_their_tokens_too(counts, power, tokens):
    """Those that were cost what was measured, even where no power law fits all of them."""
    measured = [vars(each) for each in timed({str(count): count for count in counts}, power)]
    assert clip_seconds(measured, tokens) == pytest.approx(1e-4 * tokens**power, rel=1e-6)
    for number, each in enumerate(measured):
        each["seconds"] *= 1 + number
    for each in measured:
        assert clip_seconds(measured, each["tokens"]) == pytest.approx(each["seconds"] / each["clips"], rel=1e-6)


@settings(max_examples=200)
@given(TOKENS, POWERS, st.integers(1, 8), st.integers(1, 4), st.integers(10_000, 4_000_000))
def test_no_step_has_more_tokens_than_the_budget_and_each_takes_alike_long(tokens, power, ranks, accumulate, most):
    unit = ranks * accumulate
    assume(max(tokens.values()) * unit <= most)
    balance = sizes_for(tokens, power, ranks, accumulate=accumulate, tokens=most)
    took = {}
    for name, size in balance.sizes.items():
        assert size % unit == 0 and 0 < size * tokens[name] <= most
        took[name] = balance.step_seconds(name, tokens[name], ranks)
    # Sizes are whole clips, so a small one is off by up to half of itself.
    large = [took[name] for name, size in balance.sizes.items() if size >= 10 * unit]
    assert not large or max(large) <= 1.25 * min(large)


def test_seconds_are_those_of_a_whole_step():
    balance = sizes_for({"a": 100, "b": 1000}, 1.0, ranks=2, update_s=0.5, seconds=2.5)
    assert balance.sizes == {"a": 400, "b": 40}  # 2 s on each of two ranks, at 10 and 100 ms a clip
    assert balance.step_seconds("b", 1000, 2) == pytest.approx(2.5)


def test_longer_clips_get_fewer_tokens_where_attention_costs_more():
    sizes = sizes_for({"image": 1000, "clip": 10_000}, 1.3, tokens=100_000).sizes
    assert sizes == {"image": 100, "clip": 5}


def test_a_bucket_gives_no_more_clips_than_it_has():
    assert sizes_for({"a": 10, "b": 100}, 1.0, ranks=2, samples=7, tokens=4000).sizes == {"a": 6, "b": 6}


def test_steps_that_cannot_be_balanced_are_said():
    even = sizes_for({"a": 100, "b": 1000}, 1.0, tokens=10_000)
    assert said(even, {"a": 100, "b": 1000}, 1) == [
        "balanced batches: 100 of a, 10 of b; a clip costs tokens^1.00, measured"
    ]
    uneven = sizes_for({"a": 100, "b": 1000}, 1.0, tokens=500)
    lines = said(uneven, {"a": 100, "b": 1000}, 1)
    assert len(lines) == 2 and lines[1].startswith("a step of 1 of b takes 2.0 times as long as one of 5 of a")


def test_few_buckets_are_timed_from_the_shortest_clips_to_the_longest():
    assert spread({"a": 5}) == ["a"] and spread({"a": 5, "b": 5}) == ["a"]
    many = {f"{count}": count for count in range(1, 31)}
    assert spread(many) == ["1", "11", "20", "30"] or len(spread(many)) == 4
    assert {spread(many)[0], spread(many)[-1]} == {"1", "30"}


def test_what_is_recorded_gives_the_same_sizes_again():
    balance = sizes_for({"a": 100, "b": 1000}, 1.1, tokens=10_000)
    again = Balance.from_dict(vars(balance))
    assert batch_sizes(config(batch_size="balanced", balance={"tokens": 10_000}), {"a": 0, "b": 0}, 1, again) == (
        balance.sizes
    )
