"""A training run on a terminal has a bar, elsewhere the trainer's plain lines."""

import io

from curate.training.console import BarConsole, training_console
from tests.curate.test_progress_bar import Terminal


def test_a_terminal_gets_a_bar_with_the_numbers_of_the_last_step():
    stream = Terminal()
    with training_console("dit", 40, stream=stream) as console:
        assert isinstance(console, BarConsole) and console.bar is None
        console.step(11, {"loss": 0.25, "MFU": "30%"})
        console.step(12, {"loss": 0.125, "MFU": "31%"})
        assert console.bar.figures().startswith("12/40 steps ")
    shown = stream.getvalue()
    assert "dit" in shown and "loss 0.125 · MFU 31%" in shown


def test_a_resumed_run_counts_no_step_of_before_in_its_rate():
    with training_console("dit", 2000, stream=Terminal()) as console:
        console.step(1001, {})
        assert console.bar.start == 1001


def test_elsewhere_and_where_quiet_the_trainer_prints_as_ever(capsys):
    with training_console("dit", 40, stream=io.StringIO()) as console:
        assert not isinstance(console, BarConsole)
        console.step(40, {"loss": 0.25})
    assert "dit 40/40 · loss 0.25" in capsys.readouterr().err
    with training_console("dit", 40, quiet=True, stream=Terminal()) as console:
        console.step(40, {"loss": 0.25})
    assert capsys.readouterr().err == ""
