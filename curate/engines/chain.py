"""The chain: one unit through a list of stages, the part that every engine shares."""

from __future__ import annotations

from collections.abc import Iterator

from curate.units import Unit
from stages.base import Stage


def run_stages(stages: tuple[Stage, ...], unit: Unit) -> Iterator[Unit]:
    """One unit through stages that are set up; an exception fails the unit and nothing else."""
    if not stages or unit.failure is not None:
        yield unit
        return
    try:
        for part in stages[0](unit):
            yield from run_stages(stages[1:], part)
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        yield Unit(unit.unit_id, unit.entry, failure=f"{stages[0].name}: {text}"[:500])
