"""Gates inside a run: the stages after them skip the clips they drop. The verdict itself is judged by views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from curate.catalog.gates import Gate, Judge
from curate.catalog.schema import BOOKKEEPING
from stages.base import UnitStage
from stages.unit import Clip, Row, Unit


class GateStage(UnitStage):
    """Judges the clips of a unit by their columns and by what the stages before it added.

    The rows themselves are left as they are: verdicts are judged again by every query.
    """

    name: ClassVar[str] = "gate"

    def __init__(self, gates: Sequence[Gate], columns: Mapping[str, Any]):
        self.gates, self.known_columns = list(gates), dict(columns)
        self.judge: Judge | None = None

    def setup(self) -> None:
        self.judge = Judge(self.gates, self.known_columns)

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        if self.judge is None:
            self.setup()
        assert self.judge is not None
        for clip, judged in zip(unit.clips, self.judge([_columns(clip) for clip in unit.clips]), strict=True):
            if judged.verdict != "kept":
                clip.passing = False
                clip.drop_frames()
        yield unit


def _columns(clip: Clip) -> Row:
    """A clip's columns with those that stages of this run added."""
    if not clip.results:
        return clip.row
    added = (row.items() for row in clip.results.values())
    return clip.row | {name: value for row in added for name, value in row if name not in BOOKKEEPING}
