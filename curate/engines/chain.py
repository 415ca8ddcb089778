"""The chain: units through a list of stages, the part that every engine shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stages.base import Stage
from stages.unit import Unit


def run_stages(stages: tuple[Stage, ...], units: Iterable[Unit]) -> Iterator[Unit]:
    """Units through stages that are set up, each stage pulling from the one before it."""
    for stage in stages:
        units = _numbered(stage.stream(units))
    yield from units


def _numbered(units: Iterable[Unit]) -> Iterator[Unit]:
    """A unit that fails after parts of it have left ends with a part behind those."""
    left: dict[str, int] = {}
    for unit in units:
        if not unit.last:
            left[unit.unit_id] = unit.part + 1
        else:
            unit.part = max(unit.part, left.pop(unit.unit_id, 0))
        yield unit


class PartsInOrder:
    """Workers of one pool overtake each other: parts of a unit are held until those before them are there.

    A unit that is over is known by `over`, so that what a worker gave before it died, given again, is left out.
    """

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        self._held: dict[str, dict[int, Unit]] = {}

    def add(self, unit: Unit) -> Iterator[Unit]:
        """The parts that can leave now."""
        if unit.last and unit.part == 0:
            yield unit
            return
        key = unit.unit_id
        due = self._next.setdefault(key, 0)
        if unit.part < due:
            return
        held = self._held.setdefault(key, {})
        held[unit.part] = unit
        while due in held:
            part = held.pop(due)
            due += 1
            self._next[key] = due
            if part.last:
                self.forget(key)
            yield part

    def forget(self, key: str) -> None:
        self._next.pop(key, None)
        self._held.pop(key, None)
