"""Progress of a run: a live line on a terminal, plain lines every ten seconds elsewhere; always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from curate.committer import Committer
from curate.pending import Pending
from curate.plan import Plan

PLAIN_SECONDS = 10.0
ETA_SECONDS = 5.0  # before that a guess would only mislead


class Progress:
    """Rates since the start, counts of kept, dropped and failed, and the time left once that is known.

    'h/h' is hours of video an hour.
    """

    def __init__(self, plan: Plan, committer: Committer, pending: Pending, quiet: bool = False):
        self.name, self.committer, self.pending, self.quiet = plan.recipe.name, committer, pending, quiet
        self.total: int | None = None  # sources still to do, counted beside the run
        self.began = self.shown = time.monotonic()
        self.live: Any = None

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(stderr=True), get_renderable=self.line, refresh_per_second=4)
            self.live.start()
        if not self.quiet:
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
        counts = self.committer.counts
        seconds = max(time.monotonic() - self.began, 1e-6)
        sources = counts["done"] + counts["failed"]
        clips = counts["kept"] + counts["dropped"]
        left = ""
        if self.total is not None and sources and seconds > ETA_SECONDS:
            left = f" · {duration((self.total - sources) * seconds / sources)} left"
        of = f"/{self.total:,}" if self.total is not None else ""
        return (
            f"{self.name} {sources:,}{of} sources {sources / seconds:.1f}/s · "
            f"{clips:,} clips {clips / seconds:.1f}/s · "
            f"{self.committer.video_seconds / seconds:.1f} h/h · "
            f"{counts['kept']:,} kept {counts['dropped']:,} dropped {counts['failed']:,} failed{left}"
        )

    def _count(self) -> None:
        """Lists once more, only to count; errors are the run's own to report."""
        try:
            listing = type(self.pending.entries)(self.pending.entries.inputs, self.pending.entries.extensions)
            beside = Pending(listing, limit=self.pending.limit, done=self.pending.done, failed=self.pending.failed)
            self.total = sum(1 for _ in beside)
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
