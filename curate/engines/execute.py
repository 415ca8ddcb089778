"""Units through a list of stages: the part that every engine shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stages.base import UnitStage
from stages.unit import Unit


def execute(stages: tuple[UnitStage, ...], units: Iterable[Unit]) -> Iterator[Unit]:
    """Units through stages that are set up, each stage pulling from the one before it."""
    for stage in stages:
        units = _number_parts(stage.stream(units))
    yield from units


def _number_parts(units: Iterable[Unit]) -> Iterator[Unit]:
    """A unit that fails after parts of it have left ends with a part numbered after those."""
    following: dict[str, int] = {}
    for unit in units:
        if not unit.last:
            following[unit.unit_id] = unit.part + 1
        else:
            unit.part = max(unit.part, following.pop(unit.unit_id, 0))
        yield unit
