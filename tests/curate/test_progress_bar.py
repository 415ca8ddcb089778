"""The progress of a long command: a bar for people at a terminal, few plain lines for logs, nothing where quiet."""

import io
import sys

import pytest

from curate.progress_bar import PLAIN_SECONDS, ProgressBar, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_log_gets_one_plain_line_every_ten_seconds(clock):
    stream = io.StringIO()
    with ProgressBar("ingest", 40, "sources", stream=stream, clock=clock) as bar:
        for done in range(1, 26):
            clock.now += 1.0
            bar.update(done, f"{done} kept")
    assert stream.getvalue().splitlines() == [
        "ingest 10/40 sources 1.0/s · 10 kept · 30 s left",
        "ingest 20/40 sources 1.0/s · 20 kept · 20 s left",
        "ingest 25/40 sources 1.0/s · 25 kept · 25 s in all",
    ]


def test_the_last_line_of_a_log_stands_once(clock):
    stream = io.StringIO()
    with ProgressBar("ingest", 10, "sources", stream=stream, clock=clock) as bar:
        clock.now += 10.0
        bar.update(10, "10 kept")
    assert stream.getvalue() == "ingest 10/10 sources 1.0/s · 10 kept\n"


def test_what_is_loaded_is_said_at_once_and_until_the_first_item(clock):
    for stream in (io.StringIO(), Terminal()):
        with ProgressBar("vectors", 10, "clips", stream=stream, clock=clock) as bar:
            bar.announce("loading CLIP model tiny")
            assert bar.figures() == "0/10 clips 0.0/s · loading CLIP model tiny"
            clock.now += 1.0
            bar.update(5, "5 done")
            assert "loading" not in bar.figures()
        assert "loading CLIP model tiny" in stream.getvalue()


def test_the_first_item_brings_the_time_left_where_it_is_known_when_work_began(clock):
    with ProgressBar("vectors", 100, "clips", stream=io.StringIO(), clock=clock) as bar:
        clock.now += 1000.0  # models are loaded
        bar.begin()
        clock.now += 10.0
        assert bar.figures() == "0/100 clips 0.0/s"
        bar.update(10)
        assert bar.figures().endswith("1 min 30 s left")


def test_a_share_of_the_first_item_brings_the_time_left(clock):
    with ProgressBar("ingest", 10, "sources", stream=io.StringIO(), clock=clock) as bar:
        bar.begin()
        clock.now += 3.0
        bar.advance(0.1)
        assert "left" not in bar.figures(), "too early to say"
        clock.now += 3.0
        bar.advance(0.2)
        assert bar.figures() == "0/10 sources 0.0/s · 4 min 54 s left"
        bar.update(1)
        assert bar.partial == 0.0


def test_a_short_command_says_nothing_in_a_log(clock):
    stream = io.StringIO()
    with ProgressBar("verify", 2, "shards", stream=stream, clock=clock) as bar:
        bar.update(2)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_with_the_same_figures(clock):
    stream = Terminal()
    with ProgressBar("ingest", 40, "sources", stream=stream, clock=clock) as bar:
        clock.now += 1.0
        bar.update(1)
        clock.now += 9.0
        bar.update(10, "3 failed")
        assert bar.figures() == "10/40 sources 1.0/s · 3 failed · 30 s left"
    shown = stream.getvalue()
    assert "ingest" in shown and "━" in shown and bar.figures() in shown


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_quiet_shows_nothing_anywhere(clock, kind):
    stream = kind()
    with ProgressBar("ingest", 40, "sources", quiet=True, stream=stream, clock=clock) as bar:
        clock.now += 10 * PLAIN_SECONDS
        assert not bar.due
        bar.update(20)
    assert stream.getvalue() == ""


def test_without_rich_a_terminal_gets_plain_lines(clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    stream = Terminal()
    with ProgressBar("train", 40, "steps", stream=stream, clock=clock) as bar:
        clock.now += PLAIN_SECONDS
        bar.update(10)
    assert stream.getvalue() == "train 10/40 steps 1.0/s\n"


def test_a_total_that_is_found_later_brings_the_time_left(clock):
    with ProgressBar("ingest", None, "sources", stream=io.StringIO(), clock=clock) as bar:
        clock.now += 1.0
        bar.update(1)
        clock.now += 9.0
        bar.update(10)
        assert bar.figures() == "10 sources 1.0/s"
        bar.total = 1010
        assert bar.figures() == "10/1,010 sources 1.0/s · 16 min 40 s left"


def test_what_was_done_before_counts_for_no_rate(clock):
    with ProgressBar("dit", 3000, "steps", start=2000, stream=io.StringIO(), clock=clock) as bar:
        assert bar.figures() == "2,000/3,000 steps 0.0/s"
        clock.now += 100.0
        bar.update(2010)
        assert bar.figures() == "2,010/3,000 steps 0.1/s"


def test_a_slow_start_is_no_part_of_the_time_left(clock):
    with ProgressBar("ingest", 100, "sources", stream=io.StringIO(), clock=clock) as bar:
        clock.now += 1000.0  # models are loaded
        bar.update(1)
        clock.now += 10.0
        bar.update(11)
        assert bar.figures().endswith("1 min 29 s left")


def test_text_is_shown_as_it_is(clock):
    stream = Terminal()
    with ProgressBar("sampling", 4, "steps", stream=stream, clock=clock) as bar:
        bar.update(1, "[bold]17x64x64[/bold]")
    assert "[bold]17x64x64[/bold]" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_said_in_two_units(seconds, said):
    assert duration(seconds) == said
