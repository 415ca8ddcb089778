"""Progress of a run: a bar for sources or clips, with rates and counts of kept, dropped and failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from curate.engines.tally import Tally
from curate.progress_bar import ProgressBar
from curate.recipe.plan import Plan
from curate.run.listing import Listing
from curate.run.pending import PendingSources
from curate.run.selection import Selection
from stages.base import Stage


class SourceProgress:
    """'12/40 sources 1.5/s · 30 clips 3.8/s · 2.1 h/h · 20 kept 10 dropped 1 failed'; h/h is hours of video an hour.

    How many sources there are is counted beside the run by listing them once more, unless that takes remote archives.
    """

    def __init__(self, plan: Plan, total: Tally, pending: PendingSources, listing: Listing, quiet: bool):
        self.total, self.quiet = total, quiet
        self.stages = [*([plan.decode] if plan.decode is not None else []), *plan.clip_stages]
        self.bar = ProgressBar(plan.recipe.name, None, "sources", quiet=quiet)
        again = Listing(listing.inputs, listing.extensions, remote_archives=False)
        self.count: Callable[[], int] = lambda: sum(
            1 for _ in PendingSources(again, limit=pending.limit, done=pending.done, failed=pending.failed)
        )

    def __enter__(self) -> SourceProgress:
        self.bar.__enter__()
        _say_what_loads(self.bar, self.stages)
        if not self.quiet:
            threading.Thread(target=self._count, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.__exit__()

    def update(self) -> None:
        total, seconds = self.total, self.bar.seconds
        if not total.done + total.failed:
            self.bar.begin()
        clips = total.kept + total.dropped
        text = (
            f"{clips:,} clips {clips / seconds:.1f}/s · {total.video_seconds / seconds:.1f} h/h · "
            f"{total.kept:,} kept {total.dropped:,} dropped {total.failed:,} failed"
        )
        self.bar.update(total.done + total.failed, text)

    def scanned(self, share: float) -> None:
        """Of the source in hand, this share is scanned."""
        self.bar.advance(share)

    def _count(self) -> None:
        """Errors are the run's own to report."""
        try:
            self.bar.total = self.count()
        except Exception:
            self.bar.total = None


class ClipProgress:
    """'64/200 clips 5.1/s · captions 60 done 4 failed'."""

    def __init__(self, plan: Plan, total: Tally, selection: Selection, quiet: bool):
        self.total, self.stages = total, plan.clip_stages
        self.tables = [stage.table for stage in plan.clip_stages]
        self.bar = ProgressBar(plan.recipe.name, selection.to_do, "clips", quiet=quiet)

    def __enter__(self) -> ClipProgress:
        self.bar.__enter__()
        _say_what_loads(self.bar, self.stages)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.__exit__()

    def update(self) -> None:
        found = self.total.results
        if not self.total.clips:
            self.bar.begin()
        each = [
            f"{table} {found[table, 'done']:,} done {found[table, 'failed']:,} failed"
            + (f" {found[table, 'unfit']:,} unfit" if found[table, "unfit"] else "")
            for table in self.tables
        ]
        self.bar.update(self.total.clips, " · ".join(each))


def _say_what_loads(bar: ProgressBar, stages: Sequence[Stage]) -> None:
    if models := dict.fromkeys(model for stage in stages for model in stage.loads()):
        bar.announce(f"loading {', '.join(models)}")
