"""The lines of a training run on stderr: a progress bar on a terminal, the trainer's plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from curate.progress_bar import ProgressBar
from train.run.log import Console


@contextmanager
def training_console(name: str, steps: int, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Console]:
    """The console for a run of so many steps; a bar that it shows ends with the block."""
    if quiet or not (stream or sys.stderr).isatty():
        yield Console(name, steps, quiet=quiet)
        return
    with ExitStack() as stack:
        yield BarConsole(
            name,
            steps,
            lambda start: stack.enter_context(ProgressBar(name, steps, "steps", start=start, stream=stream)),
        )


class BarConsole(Console):
    """Shows the numbers of the last step behind a bar. `show` starts the bar, given the step the run begins from.

    It starts with the first step that is done, so that loading and compiling are no part of the rate.
    """

    def __init__(self, name: str, steps: int, show: Callable[[int], ProgressBar]):
        super().__init__(name, steps)
        self.show = show
        self.bar: ProgressBar | None = None

    def step(self, step: int, numbers: Mapping[str, Any]) -> None:
        if self.bar is None:
            self.bar = self.show(step)
        self.bar.update(step, self.text(numbers))
