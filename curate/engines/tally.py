"""The tally: what the driver is told of finished units instead of their rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from stages.unit import PURGED, Unit


@dataclass
class Tally:
    """Counts of finished units; tallies add up.

    `results` counts rows of stages on clips by (table, 'done', 'failed' or 'unfit'); `reasons` counts failures by their
    class, and `unfit` the clips that a stage does not take. `purged` are ids of sources that were met under new names
    and left out, since their bytes were purged.
    """

    done: int = 0  # sources
    failed: int = 0
    kept: int = 0  # clips of scanned sources
    dropped: int = 0
    clips: int = 0  # clips of the catalog that came back from the stages
    video_seconds: float = 0.0
    results: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unfit: Counter[str] = field(default_factory=Counter)
    stage_seconds: Counter[str] = field(default_factory=Counter)
    purged: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name in ("done", "failed", "kept", "dropped", "clips", "video_seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("results", "reasons", "unfit", "stage_seconds"):
            if counts := getattr(other, name):
                getattr(self, name).update(counts)
        self.purged += other.purged

    def fail(self, source_id: str, reason: str) -> None:
        """Counts a source that left no clip."""
        if reason == PURGED:
            self.purged.append(source_id)
            return
        self.failed += 1
        self.reasons[reason_class(reason)] += 1


def tally(units: Iterable[Unit], tables: Iterable[str] = ()) -> Tally:
    """Of whole units, or of parts of one. `tables` are those that a unit of catalog clips fills."""
    found = Tally()
    units, tables = list(units), tuple(tables)
    broken = {unit.unit_id for unit in units if unit.failure is not None}
    for unit in units:
        found.stage_seconds.update(unit.seconds)
        if unit.source is None:
            found.clips += unit.progress or len(unit.clips)
        elif unit.unit_id in broken:  # none of its parts counts
            if unit.failure is not None:
                found.fail(unit.unit_id, unit.failure)
            continue
        else:
            found.done += unit.last
            kept = sum(clip.passing for clip in unit.clips)
            found.kept += kept
            found.dropped += len(unit.clips) - kept
            found.video_seconds += unit.scanned.get("duration_s") or 0.0
        for clip in unit.clips:
            for table, row in clip.results.items():
                found.results[table, row["status"]] += 1
                if row["status"] != "done":
                    counted = found.reasons if row["status"] == "failed" else found.unfit
                    counted[f"{table}: {reason_class(row['reason'])}"] += 1
            for table in tables if unit.failure is not None else ():
                if clip.lacks(table):
                    found.results[table, "failed"] += 1
                    found.reasons[f"{table}: {reason_class(unit.failure or '')}"] += 1
    return found


def reason_class(reason: str) -> str:
    """A reason without its figures, so that like failures are counted together; an exception with its message."""
    first = reason.split(":", 1)[0].strip()
    return reason[:120] if first.isidentifier() and first.endswith(("Error", "Exception")) else first or "unknown"
