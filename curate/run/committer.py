"""The committer: finished units are gathered and committed in batches, a unit's rows of a table together.

Each table that marks something as done has its own ledger. Sources are committed before the rows that stages
on clips made of them: after a crash in between, those clips are done again from the catalog.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from curate.catalog.idset import IdSet, pack
from curate.catalog.ledger import Ledger
from curate.catalog.schema import MARKED, rows_to_table
from curate.recipe.plan import Plan
from stages.unit import Unit

BATCH_ROWS = 4000
BATCH_SECONDS = 5.0
SOURCES = ("clips", "thumbnails", "sources")  # the tables of the ledger of sources


class Committer:
    """`add()` takes units and parts as an engine yields them; `flush()` commits what is whole.

    `counts` says what came of this run: sources done and failed, clips kept and dropped, seconds of video;
    `marked` the same of each table of a stage on clips: (table, 'done' or 'failed') -> clips.
    `replace` are ids by table whose rows of earlier batches go.
    """

    def __init__(self, plan: Plan, ledgers: Mapping[str, Ledger], replace: Mapping[str, IdSet], run: Mapping[str, str]):
        self.plan, self.ledgers, self.replace = plan, ledgers, dict(replace)
        self.stamps = {table: {**run, "settings": mark.settings} for table, mark in plan.marks.items()}
        self.stages = {step.stage.table: step.stage for step in plan.clip_steps}
        self.counts: Counter[str] = Counter()
        self.marked: Counter[tuple[str, str]] = Counter()
        self.clips = 0  # known clips that came back from the stages
        self.video_seconds = 0.0
        self.reasons: Counter[str] = Counter()
        self.stage_seconds: Counter[str] = Counter()
        self._parts: dict[str, list[Unit]] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._size = 0
        self._since = time.monotonic()

    def add(self, unit: Unit) -> None:
        self.stage_seconds.update(unit.seconds)
        if unit.known:
            self._clips(unit)
        else:
            self._parts.setdefault(unit.unit_id, []).append(unit)
            if unit.last:
                self._source(unit.entry, self._parts.pop(unit.unit_id))
        if self._size >= BATCH_ROWS or time.monotonic() - self._since >= BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._since = time.monotonic()
        rows, self._rows, self._size = self._rows, {}, 0
        now = datetime.datetime.now(datetime.UTC)
        for table, mark in self.plan.marks.items():
            if not rows.get(table):
                continue
            for row in rows[table]:
                row |= self.stamps[table] | {"committed_at": now}
            tables = {
                name: rows_to_table(name, rows[name], self._types(name))
                for name in (SOURCES if table == "sources" else (table,))
                if rows.get(name)
            }
            keys = [row[mark.key] for row in rows[table]]
            old = self.replace[table].contains(pack(keys)) if table in self.replace else [False] * len(keys)
            self.ledgers[table].commit(tables, replace={key for key, again in zip(keys, old, strict=True) if again})
            if table in self.stages:
                self.stages[table].committed({row["clip_id"] for row in rows[table] if row["status"] == "done"})

    def _types(self, name: str) -> dict[str, Any]:
        added = self.plan.arrow_columns.get(name, {})
        return added if name in SOURCES else {field.name: field.type for field in MARKED} | added

    def _source(self, entry: dict[str, Any], parts: list[Unit]) -> None:
        """A source of all its parts: the clips of a failed one are not kept, its header facts are."""
        mark = {**entry, **(parts[-1].rows.get("sources") or [{}])[0]}
        failure = next((part.failure for part in parts if part.failure is not None), None)
        rows: dict[str, list[dict[str, Any]]] = {}
        if failure is None:
            for part in parts:
                for table, found in part.rows.items():
                    if table != "sources":
                        rows.setdefault(table, []).extend(found)
                    for row in found if table in self.stages else ():
                        row["content_hash"] = mark.get("content_hash")
        clips = rows.get("clips", [])
        rows["sources"] = [
            mark | {"status": "done" if failure is None else "failed", "reason": failure, "clips": len(clips)}
        ]
        self.counts["done" if failure is None else "failed"] += 1
        if failure is None:
            kept = sum(len(part.passing) if part.passing is not None else len(part.rows["clips"]) for part in parts)
            self.counts["kept"] += kept
            self.counts["dropped"] += len(clips) - kept
            self.video_seconds += mark.get("duration_s") or 0.0
        else:
            self.reasons[reason_class(failure)] += 1
        self._take(rows)

    def _clips(self, unit: Unit) -> None:
        """A group of clips: what its stages made, or one failed row for each clip and stage it was for."""
        self.clips += len(unit.known)
        rows = unit.rows
        if unit.failure is not None:
            rows = {table: self._all_failed(unit, table) for table in self.stages}
        for found in rows.values():
            for row in found:
                row["content_hash"] = unit.entry_of(row).get("content_hash")
        self._take(rows)

    @staticmethod
    def _all_failed(unit: Unit, table: str) -> list[dict[str, Any]]:
        have = unit.have.get(table, ())
        return [
            {"clip_id": c["clip_id"], "source_id": c["source_id"], "status": "failed", "reason": unit.failure}
            for c in unit.known
            if c["clip_id"] not in have
        ]

    def _take(self, rows: Mapping[str, list[dict[str, Any]]]) -> None:
        for table, found in rows.items():
            self._rows.setdefault(table, []).extend(found)
            self._size += len(found) if table != "thumbnails" else 0
            for row in found if table in self.stages else ():
                self.marked[table, row["status"]] += 1
                if row["status"] == "failed":
                    self.reasons[f"{table}: {reason_class(row['reason'])}"] += 1


def reason_class(reason: str) -> str:
    """A reason without its figures, so that like failures are counted together."""
    return reason.split(":", 1)[0].strip() or "unknown"
