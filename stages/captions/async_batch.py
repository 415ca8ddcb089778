"""Asks a server about many clips at a time, across units: a slow clip delays its own unit and no other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import ClassVar, Protocol

from stages.base import ClipError, one_line
from stages.captions.answers import Answer
from stages.unit import Clip, Row, Unit

AHEAD = 2  # clips taken in for each that is asked about, so that no thread waits for the next unit's frames
GRACE_S = 10.0  # a stopped run waits so long for answers under way: they are paid for

Answers = dict[str, Answer] | ClipError  # a clip's captions by name, or why one is missing


class AskingStage(Protocol):
    """What is used of the stage `caption`; `ask` is called from many threads, the rest from the caller's."""

    name: ClassVar[str]

    def ready_clips(self, unit: Unit) -> list[Clip]: ...

    def ask(self, clip: Clip) -> Answers: ...

    def rows(self, clips: Sequence[Clip], found: Sequence[Answers]) -> list[Row | ClipError]: ...

    def add(self, clip: Clip, answer: Row | ClipError) -> None: ...

    def halt(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class PendingUnit:
    """A unit whose clips are being asked about."""

    unit: Unit
    clips: list[Clip]
    answers: dict[int, Answers]  # by the clip's place in `clips`
    seconds: float = 0.0  # CPU seconds of the threads that asked

    @property
    def complete(self) -> bool:
        return len(self.answers) == len(self.clips)


def stream_concurrently(
    stage: AskingStage, units: Iterable[Unit], concurrency: int, grace_s: float = GRACE_S
) -> Iterator[Unit]:
    """Units through `stage.ask` and `stage.rows`, `concurrency` clips at a time, in the order they are finished.

    The parts of one unit keep their order. A unit is taken in only while fewer than AHEAD * concurrency clips wait,
    so memory stays bounded. When the caller stops early, answers under way get `grace_s` seconds to arrive.
    """
    source = iter(units)
    parts: dict[str, deque[PendingUnit]] = {}  # by unit_id
    running: dict[Future[tuple[Answers, float]], tuple[PendingUnit, int]] = {}
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="caption")
    try:
        ended = False
        while running or not ended:
            while not ended and len(running) < AHEAD * concurrency:
                unit = next(source, None)
                if unit is None:
                    ended = True
                    break
                pending = PendingUnit(unit, stage.ready_clips(unit), {})
                parts.setdefault(unit.unit_id, deque()).append(pending)
                for index, clip in enumerate(pending.clips):
                    running[pool.submit(_timed_ask, stage, clip)] = (pending, index)
                yield from _finished(stage, parts, unit.unit_id)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                pending, index = running.pop(future)
                pending.answers[index], seconds = future.result()
                pending.seconds += seconds
                yield from _finished(stage, parts, pending.unit.unit_id)
    finally:
        under_way = [future for future in running if not future.cancel()]
        if under_way:
            stage.halt()
            if wait(under_way, timeout=grace_s).not_done:
                stage.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(stage: AskingStage, parts: dict[str, deque[PendingUnit]], unit_id: str) -> Iterator[Unit]:
    """The parts of a unit that are complete and have no incomplete part before them, with their rows."""
    queue = parts[unit_id]
    while queue and queue[0].complete:
        pending = queue.popleft()
        began = time.thread_time()
        answers = [pending.answers[index] for index in range(len(pending.clips))]
        try:
            rows = stage.rows(pending.clips, answers)
        except Exception as error:
            rows = [ClipError(one_line(error))] * len(answers)
        for clip, row in zip(pending.clips, rows, strict=True):
            stage.add(clip, row)
        pending.unit.spent(stage.name, pending.seconds + time.thread_time() - began)
        yield pending.unit
    if not queue:
        del parts[unit_id]


def _timed_ask(stage: AskingStage, clip: Clip) -> tuple[Answers, float]:
    """The answer, and the CPU seconds of this thread."""
    began = time.thread_time()
    return stage.ask(clip), time.thread_time() - began
