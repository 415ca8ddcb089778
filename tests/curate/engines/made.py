"""What the tests of engines share: stages of their own, and a whole run with writer and ledger."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.catalog.data_files import DataFile, FileWriter
from curate.catalog.ledger import Ledger
from curate.catalog.schema import BASE
from curate.catalog.unit_writer import FileSet, WriterSettings
from curate.catalog.views import connect
from curate.engines.engine import CloseRule, Engine, Work
from curate.engines.tally import Tally
from curate.run.committer import Committer
from stages.base import Needs, SettingsError, UnitStage
from stages.frames import FrameRequest
from stages.unit import Clip, Source, Unit, source_id

ASKED = FrameRequest((0.5,), 512)
WORDS = ("raises", "kills", "kills_late", "kills_later", "parts", "raises_late")
MARKS = [("number", pa.int64()), ("slow", pa.float64()), *((word, pa.bool_()) for word in WORDS)]


class Square(UnitStage):
    """Gives each unit one clip; what else it does with some numbers is in the source's columns."""

    name: ClassVar[str] = "square"

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        said = unit.source.columns
        if said.get("raises"):
            raise ValueError(f"number {said['number']}\nis not liked")
        if said.get("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        if said.get("parts"):
            for number in range(6):
                if number == 3 and said.get("raises_late"):
                    raise ValueError("no fourth part")
                if number == 3 and said.get("kills_late"):
                    os.kill(os.getpid(), signal.SIGKILL)
                part = unit.new_part(number)
                part.last = number == 5
                part.clips = [self.clip(unit, number)]
                yield part
            return
        time.sleep(said["slow"])
        unit.clips = [self.clip(unit, 0)]
        unit.spent(self.name, 1.0 if said["slow"] else 0.001)  # slow ones are jobs of their own
        yield unit

    @staticmethod
    def clip(unit: Unit, part: int) -> Clip:
        """`scene` is the square, `frames` the process that made it, `versions` its node."""
        source = unit.source
        ids = {"clip_id": f"{source.source_id}/{part}", "source_id": source.source_id, "uri": source.uri}
        made = {"scene": source.columns["number"] ** 2 + part, "frames": os.getpid(), "versions": node()}
        return Clip(ids | made, source, new=True)


class Heavy(Square):
    """Leaves thumbnails so large that what a worker gives lies in its node's memory until a writer takes it."""

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        for made in super().__call__(unit):
            for clip in made.clips:
                ids = {name: clip.row[name] for name in ("clip_id", "source_id")}
                clip.thumbnail = ids | {"jpeg": os.urandom(400_000)}
            yield made


@dataclass(frozen=True)
class DyingWriter(FileWriter):
    """Dies once, after its files are written and before it can report them; `mark` is where it notes that."""

    mark: str = ""

    def write(self, table: str, rows: pa.Table) -> DataFile:
        made = super().write(table, rows)
        if table == "sources" and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return made


class Later(UnitStage):
    """A pool of its own, whose workers overtake each other: even parts of a unit take longer."""

    name: ClassVar[str] = "later"
    needs: ClassVar[Needs] = Needs(cpus=0.05, workers=2)

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        if not unit.last and unit.part % 2 == 0:
            time.sleep(0.2)
        if unit.source.columns.get("kills_later"):
            os.kill(os.getpid(), signal.SIGKILL)
        for clip in unit.clips:
            clip.row["width"] = 7
        yield unit


class Greedy(Square):
    """Wants more than any machine of a test has; leaves pixels for the next stage."""

    needs: ClassVar[Needs] = Needs(cpus=64)

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        for made in super().__call__(unit):
            for clip in made.clips:
                number = made.source.columns["number"] % 256
                clip.pixels = {ASKED: [(0.0, np.full((512, 512, 3), number, np.uint8))]}
            yield made


class Asking(UnitStage):
    """Waits for another's answer most of the time: one worker, next to no CPU. Writes what the pixels were."""

    name: ClassVar[str] = "asking"
    needs: ClassVar[Needs] = Needs(cpus=0.1, workers=1)

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        for clip in unit.clips:
            ((_, frame),) = clip.pixels[ASKED]
            clip.row |= {"fps": float(frame.mean()), "height": os.getpid()}
        yield unit


class Refusing(Square):
    """Finds out in the worker that its settings can't work."""

    def __init__(self, where: str):
        self.where = where

    def setup(self) -> None:
        if self.where == "setup":
            raise SettingsError("no such model: name another")

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        raise SettingsError("the server refuses the key: correct it")


class Graphic(Square):
    needs: ClassVar[Needs] = Needs(gpus=1)


def node() -> str:
    """The Ray node of this process; empty where it is none of Ray's."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def units(count: int, slow: float = 0.0, **marked: Iterable[int]) -> Iterator[Unit]:
    """Numbered units; `marked` names numbers whose source says so of itself."""
    marked = {word: set(numbers) for word, numbers in marked.items()}
    for number in range(count):
        said = {"number": number, "slow": slow}
        said |= {word: True for word, numbers in marked.items() if number in numbers}
        yield Unit(source_id(str(number)), source=Source(source_id(str(number)), f"/films/{number:05d}.mp4", said))


@dataclass
class Outcome:
    """What a run left in the catalog, by number of the unit."""

    failures: dict[int, str | None] = field(default_factory=dict)
    clips: dict[int, list[dict]] = field(default_factory=dict)
    total: Tally = field(default_factory=Tally)
    commits: int = 0


OFTEN = CloseRule(seconds=0.5)


def run(
    engine: Engine, folder: Path, stages: tuple[UnitStage, ...], given: Iterable[Unit],
    stop: threading.Event | None = None, seen=None, closing: CloseRule = OFTEN, mark: Path | None = None,
) -> Outcome:  # fmt: skip
    """A whole run into a catalog at `folder`; `seen` is told of every event, but not of workers that
    are set up, and of the outcome so far; with
    `mark` the writer dies once (see DyingWriter)."""
    catalog = Catalog.open_or_create(str(folder))
    outcome = Outcome()
    try:
        with Ledger(catalog, "sources", "source_id", uuid.uuid4().hex) as ledger:
            columns = {name: BASE[name] for name in ("clips", "thumbnails", "sources")}
            columns["sources"] = pa.schema([*columns["sources"], *map(pa.field, *zip(*MARKS, strict=True))])
            files = ledger.begin(columns)
            if mark is not None:
                files = DyingWriter(files.catalog_uri, files.run_id, files.pass_number, str(mark))
            writer = WriterSettings({"sources": files}, {"sources": {"settings": "s"}})
            committer = Committer({"sources": ledger}, {})
            work = Work(
                stages, iter(given), writer, lambda: {n: ledger.schema(n) for n in ledger.tables}, closing,
                stop or threading.Event(),
            )  # fmt: skip
            events = engine.run(work)
            try:
                for event in events:
                    if isinstance(event, FileSet):
                        committer.commit(event)
                        outcome.commits += 1
                    else:
                        outcome.total.add(event)
                    if seen is not None and event != Tally():
                        seen(event, outcome)
            finally:
                events.close()
    finally:
        with connect(catalog) as sql:
            for number, reason in sql.execute("SELECT number, reason FROM sources ORDER BY number").fetchall():
                outcome.failures[number] = reason
            found = sql.execute("SELECT * FROM clips ORDER BY clip_id")
            names = [column[0] for column in found.description]
            for row in found.fetchall():
                clip = dict(zip(names, row, strict=True))
                outcome.clips.setdefault(clip["number"], []).append(clip)
    return outcome
