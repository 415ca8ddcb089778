"""What runs inside Ray's actors: the stages of one pool, and the writer."""

from __future__ import annotations

import functools
import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from curate.catalog.data_files import DataFile, Rewrite
from curate.catalog.unit_writer import FileSet, Schemas, UnitWriter, WriterSettings
from curate.engines.execute import execute
from curate.engines.tally import Tally, tally
from stages.base import SettingsError, UnitStage
from stages.unit import Unit

STEP_SECONDS = 0.5  # what is finished leaves a worker after about so long …
STEP_BYTES = 16 << 20  # … or once it has so many bytes


class Finished(NamedTuple):
    """One unit, or one part of a unit, that left a worker."""

    unit_id: str
    attempt: int
    part: int
    last: bool
    failure: str | None


Key = tuple[str, int]  # names what a worker was given: a unit, or one part of a unit that is not its last


def key_of(unit: Unit | Finished) -> Key:
    """The key of a unit or part; a worker has finished it once something with the same key left."""
    return unit.unit_id, -1 if unit.last else unit.part


@dataclass
class Receipt:
    """What the driver is told of a payload: which units are in it, its size, and what the worker has still in hand."""

    finished: list[Finished] = field(default_factory=list)
    size: int = 0  # bytes, about
    rows: int = 0
    left: int = 0  # units that the worker was given and has not finished
    tally: Tally = field(default_factory=Tally)


class PoolWorker:
    """One actor of a pool. `step` takes units and gives those that are finished; it is called until none is left."""

    def __init__(self, stages: tuple[UnitStage, ...], tables: Sequence[str], is_last: bool):
        self.stages, self.tables, self.is_last = stages, tuple(tables), is_last
        self.waiting: deque[Unit] = deque()
        self.in_hand: set[Key] = set()
        self.running: Iterator[Unit] | None = None
        self.held: Unit | None = None  # a part of a long unit, which leaves alone

    def setup(self, fingerprint: str) -> str:
        """Sets the stages up; gives the id of this node. SettingsError from a stage, or where the code is another."""
        import ray

        if (mine := code_fingerprint()) != fingerprint:
            raise SettingsError(
                f"Ray's workers run another clipmill ({mine}) than this command ({fingerprint}): install the "
                "same one on every node, or ship it with the runtime environment of the job"
            )
        for stage in self.stages:
            stage.setup()
        return ray.get_runtime_context().get_node_id()

    def step(self, *payloads: list[Unit]) -> tuple[list[Unit], Receipt]:
        """Takes more units, if any, and works until something can leave: whole units, or one part of a unit."""
        for payload in payloads:
            self.waiting.extend(payload)
            self.in_hand.update(map(key_of, payload))
        out: list[Unit] = []
        size, began = 0, time.monotonic()
        while size < STEP_BYTES and time.monotonic() - began < STEP_SECONDS:
            if (unit := self._next()) is None:
                break
            is_part = unit.part > 0 or not unit.last
            if is_part and out:
                self.held = unit
                break
            if self.is_last:
                for clip in unit.clips:
                    clip.drop_frames()
            out.append(unit)
            size += _bytes(unit)
            if is_part:
                break
        finished = [Finished(u.unit_id, u.attempt, u.part, u.last, u.failure) for u in out]
        self.in_hand.difference_update(map(key_of, finished))
        rows = sum(1 + len(unit.clips) for unit in out)
        return out, Receipt(
            finished, size, rows, len(self.in_hand), tally(out, self.tables) if self.is_last else Tally()
        )

    def close(self) -> None:
        for stage in self.stages:
            stage.close()

    def _next(self) -> Unit | None:
        """The next unit that went through all stages; None once there is nothing to do.

        The stages see one stream as long as units are waiting, so that they can batch and decode ahead across them.
        """
        if self.held is not None:
            held, self.held = self.held, None
            return held
        while self.running is not None or self.waiting:
            if self.running is None:
                self.running = execute(self.stages, self._take())
            if (unit := next(self.running, None)) is not None:
                return unit
            self.running = None
        return None

    def _take(self) -> Iterator[Unit]:
        while self.waiting:
            yield self.waiting.popleft()


class WriterWorker:
    """The actor around a UnitWriter."""

    def __init__(self, settings: WriterSettings):
        self.writer = UnitWriter(settings)

    def add(self, failures: dict[str, str], skipped: frozenset[str], *payloads: list[Unit]) -> None:
        """Whole units of one payload, or the parts of one unit. `skipped` are those that are done again elsewhere."""
        units = [unit for payload in payloads for unit in payload if unit.unit_id not in skipped]
        for each in units:
            each.failure = failures.get(each.unit_id, each.failure)
        self.writer.add(units)

    def close(self, schemas: Schemas) -> FileSet | None:
        return self.writer.close(schemas)


def run_rewrite(job: Rewrite) -> list[DataFile]:
    return job()


@functools.cache
def code_fingerprint() -> str:
    """A short hash of the source files of these packages: the same code gives the same on every machine."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in ("curate", "stages", "models", "train"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _bytes(unit: Unit) -> int:
    """About how large a unit is as it travels."""
    pixels = sum(p.nbytes for clip in unit.clips for asked in clip.pixels.values() for _, p in asked)
    thumbnails = sum(len(clip.thumbnail["jpeg"]) for clip in unit.clips if clip.thumbnail)
    return pixels + thumbnails + 600 * (1 + len(unit.clips))
