"""Progress of a run: a bar for sources or clips, with rates and counts of kept, dropped and failed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from curate.engines.tally import Tally
from curate.progress_bar import ProgressBar
from curate.recipe.plan import Plan
from curate.run.listing import Listing
from curate.run.pending import PendingSources
from curate.run.selection import Selection


class SourceProgress:
    """'12/40 sources 1.5/s · 30 clips 3.8/s · 2.1 h/h · 20 kept 10 dropped 1 failed'; h/h is hours of video an hour.

    How many sources there are is counted beside the run by listing them once more, unless that takes remote archives.
    """

    def __init__(self, plan: Plan, total: Tally, pending: PendingSources, listing: Listing, quiet: bool):
        self.total, self.quiet = total, quiet
        self.bar = ProgressBar(plan.recipe.name, None, "sources", quiet=quiet)
        again = Listing(listing.inputs, listing.extensions, remote_archives=False)
        self.count: Callable[[], int] = lambda: sum(
            1 for _ in PendingSources(again, limit=pending.limit, done=pending.done, failed=pending.failed)
        )

    def __enter__(self) -> SourceProgress:
        self.bar.__enter__()
        if not self.quiet:
            threading.Thread(target=self._count, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.__exit__()

    def update(self) -> None:
        total, seconds = self.total, self.bar.seconds
        clips = total.kept + total.dropped
        text = (
            f"{clips:,} clips {clips / seconds:.1f}/s · {total.video_seconds / seconds:.1f} h/h · "
            f"{total.kept:,} kept {total.dropped:,} dropped {total.failed:,} failed"
        )
        self.bar.update(total.done + total.failed, text)

    def _count(self) -> None:
        """Errors are the run's own to report."""
        try:
            self.bar.total = self.count()
        except Exception:
            self.bar.total = None


class ClipProgress:
    """'64/200 clips 5.1/s · captions 60 done 4 failed'."""

    def __init__(self, plan: Plan, total: Tally, selection: Selection, quiet: bool):
        self.total = total
        self.tables = [stage.table for stage in plan.clip_stages]
        self.bar = ProgressBar(plan.recipe.name, selection.to_do, "clips", quiet=quiet)

    def __enter__(self) -> ClipProgress:
        self.bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.__exit__()

    def update(self) -> None:
        found = self.total.results
        each = [f"{table} {found[table, 'done']:,} done {found[table, 'failed']:,} failed" for table in self.tables]
        self.bar.update(self.total.clips, " · ".join(each))
