"""The inline engine: a plain loop in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import takewhile

from curate.engines.chain import run_stages
from stages.base import Stage
from stages.unit import Unit


def run_inline(stages: tuple[Stage, ...], units: Iterator[Unit], stop: threading.Event | None = None) -> Iterator[Unit]:
    """Asked to stop, it takes no further unit and leaves a long one after the part in hand."""
    stop = stop or threading.Event()
    for stage in stages:
        stage.setup()
    try:
        for unit in run_stages(stages, takewhile(lambda _: not stop.is_set(), units)):
            yield unit
            if stop.is_set() and not unit.last:
                return
    finally:
        for stage in stages:
            stage.close()
