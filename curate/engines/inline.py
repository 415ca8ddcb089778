"""The inline engine: a plain loop in this process, for small work, debugging and tests."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from itertools import takewhile

from curate.catalog.data_files import DataFile, Rewrite
from curate.catalog.unit_writer import FileSet, UnitWriter
from curate.engines.engine import Work
from curate.engines.execute import execute
from curate.engines.tally import Tally, tally
from curate.errors import EngineError
from stages.base import SourceStage
from stages.unit import Unit


class InlineEngine:
    name = "inline"

    def run(self, work: Work) -> Generator[Tally | FileSet, None, None]:
        """Asked to stop, it takes no further unit and leaves a long one after the part in hand."""
        writer = UnitWriter(work.writer)
        tables = work.writer.clip_tables
        error: Exception | None = None
        closed = time.monotonic()
        try:
            for stage in work.stages:
                stage.setup()
                if isinstance(stage, SourceStage):
                    stage.scanned = work.scanned
            yield Tally()
            for parts in self._whole_units(work):
                yield tally(parts, tables)
                if not parts[-1].last:
                    continue
                writer.add(parts)
                late = time.monotonic() - closed >= work.closing.seconds
                if late or writer.rows >= work.closing.rows or writer.size >= work.closing.size:
                    if found := _close(writer, work):
                        yield found
                    closed = time.monotonic()
        except Exception as caught:
            error = caught
        finally:
            for stage in work.stages:
                stage.close()
        if found := _close(writer, work):
            yield found
        if error is not None:
            raise error

    @staticmethod
    def _whole_units(work: Work) -> Iterator[list[Unit]]:
        """The parts of each unit, once its last one is there; parts that only report progress come by themselves."""
        waiting: dict[str, list[Unit]] = {}
        for unit in execute(work.stages, takewhile(lambda _: not work.stop.is_set(), work.units)):
            if not unit.last and unit.progress:
                yield [unit]
            else:
                waiting.setdefault(unit.unit_id, []).append(unit)
            if unit.last:
                yield waiting.pop(unit.unit_id)
            elif work.stop.is_set():
                return

    def rewrite(self, job: Rewrite) -> list[DataFile]:
        return job()

    def close(self) -> None:
        pass


def _close(writer: UnitWriter, work: Work) -> FileSet | None:
    try:
        return writer.close(work.schemas())
    except OSError as error:
        raise EngineError(f"can't write: {error}") from error
