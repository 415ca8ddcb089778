"""Requests are evenly spread under the rate limit, and begin after the pause that a server asks for."""

import pytest

from stages.captions.pace import Pace, backoff, retry_after
from tests.stages.captions.made import StoppedClock


def test_turns_are_evenly_spread_and_begin_after_a_pause():
    clock = StoppedClock()
    pace = Pace(60, clock)
    assert [pace.wait_for_turn() for _ in range(3)] == [0, 1, 1]
    pace.hold(10)
    assert [pace.wait_for_turn() for _ in range(2)] == [10, 1]
    clock.seconds += 100  # nobody asked meanwhile: what was not used is lost
    assert [pace.wait_for_turn() for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("3.5", 3.5), ("-1", None), ("inf", None), ("soon", None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0)],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert retry_after(header) == seconds
    assert retry_after("Fri, 31 Dec 2999 23:59:59 GMT") > 10**9


def test_pauses_double_up_to_a_limit_and_differ_by_chance():
    for attempt, most in enumerate((2, 4, 8, 16, 20, 20)):
        pauses = {backoff(attempt, 2.0, 20.0) for _ in range(50)}
        assert all(most / 2 <= pause <= most for pause in pauses) and len(pauses) > 1
