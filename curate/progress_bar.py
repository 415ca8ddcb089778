"""The progress of a long command, on stderr: a bar on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.text import Text

PLAIN_SECONDS = 10.0  # between two plain lines
REDRAWS = 4  # of the bar a second
ETA_SECONDS = 5.0  # of work before the time left is said: an earlier guess would mislead


class ProgressBar:
    """A context manager that shows "NAME done/total UNIT rate · text · time left".

    `total` may be None and be set later, when it is known. `start` is what was done before, such as the step that a
    run resumes from: it counts as done, but not for the rate. A `stream` (default stderr) that is no terminal gets
    plain lines, the last of them when the work is over; so does a machine without the package rich.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        unit: str,
        *,
        start: int = 0,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name, self.total, self.unit, self.start, self.quiet = name, total, unit, start, quiet
        self.stream = stream if stream is not None else sys.stderr
        self.clock = clock
        self.done, self.text = start, ""
        self.partial = 0.0  # of the item in hand, the share that is done; it counts for the time left alone
        self._began = self._shown = clock()
        self._first: tuple[int, float] | None = None  # what was done when the work began, or the first item was, when
        self._printed: str | None = None  # the latest plain line
        self._bar: Progress | None = None

    def __enter__(self) -> ProgressBar:
        self._began = self._shown = self.clock()
        if not self.quiet and self.stream.isatty():
            self._bar = _rich_bar(self)
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._printed is not None and (last := f"{self.name} {self._counts()}") != self._printed:
            self._print(f"{last} · {duration(self.seconds)} in all")

    def announce(self, what: str) -> None:
        """Says at once what goes on before the first item: a model is loaded."""
        self.text = what
        if self._bar is not None:
            self._bar.refresh()
        elif not self.quiet:
            self._print(f"{self.name}: {what}")

    def begin(self) -> None:
        """Tells that what is paid once is over (models, an engine): the time left follows from the pace since."""
        self._first = (self.done, self.clock())

    @property
    def seconds(self) -> float:
        """Since the start; never 0, so that rates can be divided by it."""
        return max(self.clock() - self._began, 1e-6)

    @property
    def due(self) -> bool:
        """Whether an update now would be seen. Callers with an expensive text make it only then, and at the end."""
        pause = PLAIN_SECONDS if self._bar is None else 1 / REDRAWS
        return not self.quiet and self.clock() - self._shown >= pause

    def update(self, done: int, text: str = "") -> None:
        """`done` items of all so far, with what was done before the start; `text` stands behind the rate."""
        self.done, self.text = done, text
        if self._first is None and done > self.start:
            self._first = (done, self.clock())
        self.partial = 0.0
        self._show()

    def advance(self, partial: float) -> None:
        """`partial` is the share of the item in hand that is done, 0 to 1."""
        self.partial = partial
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, total=self.total)
        elif self.due:
            self._print(f"{self.name} {self.figures()}")
        else:
            return
        self._shown = self.clock()

    def _print(self, line: str) -> None:
        print(line, file=self.stream, flush=True)
        self._printed = line

    def figures(self) -> str:
        """What is shown, without the name: "12/40 sources 1.5/s · 3 failed · 19 s left"."""
        left = self._seconds_left()
        return self._counts() + (f" · {duration(left)} left" if left is not None else "")

    def _counts(self) -> str:
        of = f"/{self.total:,}" if self.total is not None else ""
        rate = (self.done - self.start) / self.seconds
        parts = [f"{self.done:,}{of} {self.unit} {rate:{'.1f' if rate >= 1 or not rate else '.2g'}}/s"]
        return " · ".join([*parts, self.text] if self.text else parts)

    def _seconds_left(self) -> float | None:
        """At the pace since the work began, or where nobody said when, since the first item."""
        if self.total is None or self._first is None:
            return None
        first, at = self._first
        now, done = self.clock(), self.done + self.partial
        if done <= first or now - at <= ETA_SECONDS:
            return None
        return max(0, self.total - done) * (now - at) / (done - first)


def duration(seconds: float) -> str:
    """'4 s', '3 min 20 s', '2 h 5 min'."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def _rich_bar(shown: ProgressBar) -> Progress | None:
    """A bar of rich that asks `shown` for its figures at every redraw; None without the package."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task
        from rich.text import Text
    except ImportError:
        return None

    class Name(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(shown.name)

    class Figures(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(shown.figures())

    bar = Progress(
        Name(),
        BarColumn(bar_width=20),
        Figures(),
        console=Console(file=shown.stream),
        refresh_per_second=REDRAWS,
        redirect_stdout=False,  # data that a command prints stays on stdout
    )
    bar.add_task(shown.name, total=shown.total, completed=shown.done)
    return bar
