"""The committer: finished units are gathered and committed in batches, a unit's rows always together."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from typing import Any

from curate.idset import pack
from curate.ledger import Ledger
from curate.pending import Pending
from curate.plan import Plan
from curate.tables import rows_to_table
from curate.units import Unit

BATCH_ROWS = 4000
BATCH_SECONDS = 5.0


class Committer:
    """`add()` takes units and parts as an engine yields them; `flush()` commits what is whole.

    `counts` says what came of this run: sources done and failed, clips kept and dropped, seconds of video.
    """

    def __init__(self, plan: Plan, ledger: Ledger, pending: Pending, stamp: dict[str, Any]):
        self.plan, self.ledger, self.pending, self.stamp = plan, ledger, pending, stamp
        self.counts: Counter[str] = Counter()
        self.video_seconds = 0.0
        self.reasons: Counter[str] = Counter()
        self.stage_seconds: Counter[str] = Counter()
        self._parts: dict[str, list[Unit]] = {}
        self._batch: list[Unit] = []
        self._rows = 0
        self._since = time.monotonic()

    def add(self, unit: Unit) -> None:
        self._parts.setdefault(unit.unit_id, []).append(unit)
        if unit.last:
            self._whole(unit.entry, self._parts.pop(unit.unit_id))
        if self._rows >= BATCH_ROWS or time.monotonic() - self._since >= BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._since = time.monotonic()
        if not self._batch:
            return
        rows: dict[str, list[dict[str, Any]]] = {}
        for unit in self._batch:
            for table, found in unit.rows.items():
                rows.setdefault(table, []).extend(found)
        now = datetime.datetime.now(datetime.UTC)
        for row in rows[self.plan.mark]:
            row["committed_at"] = now
        extra = self.plan.arrow_columns
        tables = {name: rows_to_table(name, found, extra.get(name)) for name, found in rows.items() if found}
        keys = [unit.unit_id for unit in self._batch]
        again = self.pending.replace.contains(pack(keys))
        self.ledger.commit(tables, replace={key for key, old in zip(keys, again, strict=True) if old})
        self._batch, self._rows = [], 0

    def _whole(self, entry: dict[str, Any], parts: list[Unit]) -> None:
        """One unit of all its parts: the clips of a failed source are not kept, its header facts are."""
        last = parts[-1]
        mark = {**entry, **(last.rows.get(self.plan.mark) or [{}])[0]}
        unit = Unit(last.unit_id, entry)
        if last.failure is None:
            for part in parts:
                for table, found in part.rows.items():
                    if table != self.plan.mark:
                        unit.rows.setdefault(table, []).extend(found)
        clips = unit.rows.get("clips", [])
        failed = last.failure is not None
        mark |= self.stamp | {
            "status": "failed" if failed else "done",
            "reason": last.failure,
            "clips": len(clips),
        }
        unit.rows[self.plan.mark] = [mark]
        self.counts["failed" if failed else "done"] += 1
        if failed:
            self.reasons[reason_class(last.failure or "")] += 1
        else:
            kept = sum(len(part.passing) if part.passing is not None else len(part.rows["clips"]) for part in parts)
            self.counts["kept"] += kept
            self.counts["dropped"] += len(clips) - kept
            self.video_seconds += mark.get("duration_s") or 0.0
        for part in parts:
            self.stage_seconds.update(part.seconds)
        self._batch.append(unit)
        self._rows += 1 + len(clips)


def reason_class(reason: str) -> str:
    """A reason without its figures, so that like failures are counted together."""
    return reason.split(":", 1)[0].strip() or "unknown"
