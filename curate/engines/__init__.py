"""Engines: the same plan in this process (`inline`) or on Ray Data (`ray`), behind one function."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

from stages.base import Stage
from stages.unit import Unit


def run_units(
    stages: tuple[Stage, ...],
    units: Iterator[Unit],
    engine: str,
    stop: threading.Event | None = None,
    keep: ExitStack | None = None,
) -> Iterator[Unit]:
    """Units that went through every stage, in any order, parts of one unit in their own order.

    Closing the iterator ends the run; a unit that comes out neither whole nor failed is pending still.
    `stop` asks for an early end: what is nearly finished still comes out, then the iterator ends. What an
    engine has to start, it ends at `keep`'s end, so that several runs of one command share it.
    """
    if engine == "inline":
        from curate.engines.inline import run_inline

        return run_inline(stages, units, stop)
    from curate.engines.on_ray import run_on_ray

    return run_on_ray(stages, units, stop, keep)
