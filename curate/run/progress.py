"""Progress of a run: a live line on a terminal, plain lines every ten seconds elsewhere; always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from curate.engines.tally import Tally
from curate.recipe.plan import Plan
from curate.run.pending import PendingSources
from curate.run.selection import Selection

Say = Callable[[float], tuple[int, str, str]]
PLAIN_SECONDS = 10.0
ETA_SECONDS = 5.0  # before that a guess would only mislead


class Progress:
    """Rates since the start, counts of kept, dropped and failed, and the time left once that is known.

    `say` gives (done so far, what they are called, the rest of the line) for the seconds since the start;
    `count`, where the total is not known yet, finds it beside the run.
    """

    def __init__(self, name: str, say: Say, total: int | None = None, count: Callable[[], int] | None = None):
        self.name, self.say, self.total, self.count = name, say, total, count
        self.quiet = False
        self.began = self.shown = time.monotonic()
        self.first: tuple[int, float] | None = None  # what was done when something first was, and when
        self.live: Any = None

    @classmethod
    def of_sources(cls, plan: Plan, total: Tally, pending: PendingSources) -> Progress:
        """'h/h' is hours of video an hour."""

        def say(seconds: float) -> tuple[int, str, str]:
            clips = total.kept + total.dropped
            return (
                total.done + total.failed,
                "sources",
                f"{clips:,} clips {clips / seconds:.1f}/s · {total.video_seconds / seconds:.1f} h/h · "
                f"{total.kept:,} kept {total.dropped:,} dropped {total.failed:,} failed",
            )

        def count() -> int:
            """Lists once more, only to count."""
            listing = type(pending.entries)(pending.entries.inputs, pending.entries.extensions)
            return sum(
                1 for _ in PendingSources(listing, limit=pending.limit, done=pending.done, failed=pending.failed)
            )

        return cls(plan.recipe.name, say, count=count)

    @classmethod
    def of_clips(cls, plan: Plan, total: Tally, selection: Selection) -> Progress:
        tables = [stage.table for stage in plan.clip_stages]

        def say(seconds: float) -> tuple[int, str, str]:
            found = total.results
            each = [f"{t} {found[t, 'done']:,} done {found[t, 'failed']:,} failed" for t in tables]
            return total.clips, "clips", " · ".join(each)

        return cls(plan.recipe.name, say, total=selection.to_do)

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(stderr=True), get_renderable=self.line, refresh_per_second=4)
            self.live.start()
        if not self.quiet and self.count is not None:
            threading.Thread(target=self._count, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def update(self) -> None:
        now = time.monotonic()
        if not self.quiet and self.live is None and now - self.shown >= PLAIN_SECONDS:
            self.shown = now
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        seconds = max(time.monotonic() - self.began, 1e-6)
        done, called, rest = self.say(seconds)
        now, left = time.monotonic(), ""
        if done and self.first is None:
            self.first = (done, now)
        if self.total is not None and self.first and done > self.first[0] and now - self.first[1] > ETA_SECONDS:
            pace = (now - self.first[1]) / (done - self.first[0])  # an engine's start is no part of it
            left = f" · {duration(max(0, self.total - done) * pace)} left"
        of = f"/{self.total:,}" if self.total is not None else ""
        return f"{self.name} {done:,}{of} {called} {done / seconds:.1f}/s · {rest}{left}"

    def _count(self) -> None:
        """Errors are the run's own to report."""
        try:
            self.total = self.count()
        except Exception:
            self.total = None


def duration(seconds: float) -> str:
    """'4 s', '3 min 20 s', '2 h 5 min'."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
