"""Which engine a run takes: as the command line says, or by how much there is to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from curate.catalog.data_files import DataFile, Rewrite
from curate.engines.engine import Engine
from curate.engines.inline import InlineEngine
from curate.storage import is_local
from stages.unit import Unit

ENGINES = ("auto", "ray", "inline")
HANDFUL = 8  # so many units of local files, or fewer, are done inline by `auto`


class Engines:
    """The engines of one command, each started once, when a recipe first needs it; use as a context manager."""

    def __init__(self, name: str, quiet: bool = False):
        self.name, self.quiet = name, quiet
        self._started: dict[str, Engine] = {}

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: Any) -> None:
        for engine in self._started.values():
            engine.close()

    def choose(self, units: Iterator[Unit]) -> tuple[Engine | None, Iterator[Unit]]:
        """(the engine for these units, the units again); no engine where there is none."""
        first = list(islice(units, HANDFUL + 1))
        if not first:
            return None, iter(())
        name = self.name
        if name == "auto":
            few = len(first) <= HANDFUL and all(map(_is_local, first)) and not os.environ.get("RAY_ADDRESS")
            name = "inline" if few else "ray"
            if not self.quiet:
                why = (
                    f"{len(first)} local units"
                    if few
                    else "RAY_ADDRESS is set"
                    if os.environ.get("RAY_ADDRESS")
                    else ""
                )
                print(f"engine: {name}" + (f" ({why})" if why else ""), file=sys.stderr, flush=True)
        if name not in self._started:
            self._started[name] = _make(name)
        return self._started[name], chain(first, units)

    def rewrite(self, job: Rewrite) -> list[DataFile]:
        """Carries out a rewrite in the engine that ran last; in this process where none did."""
        engine = next(reversed(self._started.values()), None)
        return engine.rewrite(job) if engine is not None else job()


def _make(name: str) -> Engine:
    if name == "inline":
        return InlineEngine()
    from curate.engines.ray_engine import RayEngine

    return RayEngine()


def _is_local(unit: Unit) -> bool:
    sources = [unit.source] if unit.source is not None else [clip.source for clip in unit.clips]
    return all(source is None or is_local(source.uri) for source in sources)
