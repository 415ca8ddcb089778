"""The inline engine: a plain loop in this process."""

from __future__ import annotations

from collections.abc import Iterator

from curate.engines.chain import run_stages
from curate.units import Unit
from stages.base import Stage


def run_inline(stages: tuple[Stage, ...], units: Iterator[Unit]) -> Iterator[Unit]:
    for stage in stages:
        stage.setup()
    try:
        yield from run_stages(stages, units)
    finally:
        for stage in stages:
            stage.close()
