"""Gates inside a run: the stages after them skip the clips they drop. The verdict itself is judged by views."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from curate.catalog.gates import Gate, Judge
from curate.catalog.rights import domain_of
from curate.catalog.schema import BOOKKEEPING
from stages.base import UnitStage
from stages.unit import Clip, Row, Unit

TOGETHER = 64  # units that are judged by one query, at most
SLOW_SECONDS = 0.05  # a unit that took longer to come is not held back for others


class GateStage(UnitStage):
    """Judges the clips of a unit by their columns and by what the stages before it added.

    The rows themselves are left as they are: verdicts are judged again by every query. `of_sources` names the columns
    of manifests that the rows lack: column of the source -> its name in `clips`.
    """

    name: ClassVar[str] = "gate"

    def __init__(
        self, gates: Sequence[Gate], columns: Mapping[str, Any], of_sources: Mapping[str, str] = MappingProxyType({})
    ):
        self.gates, self.known_columns, self.of_sources = list(gates), dict(columns), dict(of_sources)
        self.judge: Judge | None = None

    def setup(self) -> None:
        self.judge = Judge(self.gates, self.known_columns)

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        self._judge([unit])
        yield unit

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Units in their order. Those that come quickly are judged together: a query costs as much as many clips."""
        waiting: list[Unit] = []
        began = time.monotonic()
        for unit in units:
            waiting.append(unit)
            slow = time.monotonic() - began > SLOW_SECONDS
            if slow or len(waiting) >= TOGETHER:
                yield from self._together(waiting)
                waiting = []
            began = time.monotonic()
        yield from self._together(waiting)

    def _together(self, units: list[Unit]) -> Iterator[Unit]:
        """Judges units in one query; where that raises, one by one, so that a bad clip fails its own unit."""
        try:
            self._judge(units)
            yield from units
        except Exception:
            yield from super().stream(units)

    def _judge(self, units: Sequence[Unit]) -> None:
        if self.judge is None:
            self.setup()
        assert self.judge is not None
        clips = [clip for unit in units if unit.failure is None for clip in unit.clips]
        if not clips:
            return
        for clip, judged in zip(clips, self.judge([_columns(clip, self.of_sources) for clip in clips]), strict=True):
            if judged.verdict != "kept":
                clip.passing = False
                clip.drop_frames()


def _columns(clip: Clip, of_sources: Mapping[str, str]) -> Row:
    """A clip's columns with those of its source's manifest and those that stages of this run added."""
    row: Row = {shown: clip.source.columns.get(name) for name, shown in of_sources.items()}
    if "domain" in of_sources and row[of_sources["domain"]] is None:
        row[of_sources["domain"]] = domain_of(clip.source.known_as or clip.source.uri)
    row |= clip.row
    for added in clip.results.values():
        row |= {name: value for name, value in added.items() if name not in BOOKKEEPING}
    return row
