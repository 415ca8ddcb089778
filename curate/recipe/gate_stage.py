"""Gates inside a run: the stages behind them skip the clips they drop. The verdict itself is judged by views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from curate.catalog.gates import Gate, Judge
from curate.catalog.schema import BOOKKEEPING
from stages.base import Stage
from stages.unit import Unit


class GateStage(Stage):
    """Judges the clips of a unit by their columns and what stages before it added to them.

    The rows themselves are left as they are: verdicts are judged again by every query.
    """

    name: ClassVar[str] = "gate"

    def __init__(self, gates: Sequence[Gate], columns: Mapping[str, Any]):
        self.judged, self.known_columns = list(gates), dict(columns)
        self.judge: Judge | None = None

    def setup(self) -> None:
        self.judge = Judge(self.judged, self.known_columns)

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        if self.judge is None:
            self.setup()
        clips = self._clips(unit)
        kept = {c["clip_id"] for c, v in zip(clips, self.judge(clips), strict=True) if v.verdict == "kept"}
        unit.passing = kept if unit.passing is None else unit.passing & kept
        unit.pixels = {clip: pixels for clip, pixels in unit.pixels.items() if clip in unit.passing}
        yield unit

    @staticmethod
    def _clips(unit: Unit) -> list[dict[str, Any]]:
        """Each clip with the columns that stages before this one added."""
        own = ("sources", "clips", "thumbnails")
        tables = [rows for table, rows in unit.rows.items() if table not in own]
        if not tables:
            return unit.clips
        found = {row["clip_id"]: dict(row) for row in unit.clips}
        for rows in tables:
            for row in rows:
                found[row["clip_id"]].update((k, v) for k, v in row.items() if k not in BOOKKEEPING)
        return list(found.values())
