"""What an engine is: units in; tallies of what finished and files to commit out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from curate.catalog.data_files import DataFile, Rewrite
from curate.catalog.unit_writer import FileSet, Schemas, WriterSettings
from curate.engines.tally import Tally
from stages.base import UnitStage
from stages.unit import Unit


@dataclass(frozen=True)
class CloseRule:
    """When writers close their files: at so many rows or bytes, or so many seconds after the last time."""

    rows: int = 20_000
    size: int = 256 << 20  # bytes
    seconds: float = 5.0


@dataclass(frozen=True)
class Work:
    """What an engine is given.

    `schemas` gives the stored columns of the tables as they are now: a manifest may bring new ones during a run.
    `stop`, once set, asks for an early end: what is nearly finished still comes out. `scanned` is told of the share of
    the source in hand that is scanned, 0 to 1, by an engine that has one in hand at a time.
    """

    stages: tuple[UnitStage, ...]
    units: Iterator[Unit]
    writer: WriterSettings
    schemas: Callable[[], Schemas]
    closing: CloseRule = field(default_factory=CloseRule)
    stop: threading.Event = field(default_factory=threading.Event)
    scanned: Callable[[float], None] | None = None


class Engine(Protocol):
    """Runs work; one engine serves all recipes of a command."""

    name: str

    def run(self, work: Work) -> Generator[Tally | FileSet, None, None]:
        """Yields an empty tally when a worker is set up, a tally as units finish, and file sets to commit. A unit in no
        file set is pending still.

        Raises SettingsError from a stage, and EngineError where the engine itself failed, after the last file set.
        """

    def rewrite(self, job: Rewrite) -> list[DataFile]:
        """Carries out a rewrite of data files, outside the driver where the engine has workers."""

    def close(self) -> None:
        """Ends what the engine started."""
