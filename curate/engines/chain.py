"""The chain: units through a list of stages, the part that every engine shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from curate.units import Unit
from stages.base import Stage


def run_stages(stages: tuple[Stage, ...], units: Iterable[Unit]) -> Iterator[Unit]:
    """Units through stages that are set up, each stage pulling from the one before it."""
    for stage in stages:
        units = stage.stream(units)
    yield from units
