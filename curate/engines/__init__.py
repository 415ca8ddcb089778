"""Engines: the same plan in this process (`inline`) or on Ray Data (`ray`), behind one function."""

from __future__ import annotations

from collections.abc import Iterator

from curate.units import Unit
from stages.base import Stage


def run_units(stages: tuple[Stage, ...], units: Iterator[Unit], engine: str) -> Iterator[Unit]:
    """Units that went through every stage, in any order, parts of one unit in their own order.

    Closing the iterator ends the run; a unit that comes out neither whole nor failed is pending still.
    """
    if engine == "inline":
        from curate.engines.inline import run_inline

        return run_inline(stages, units)
    from curate.engines.on_ray import run_on_ray

    return run_on_ray(stages, units)
