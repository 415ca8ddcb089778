"""Clips of many units asked about side by side: a slow clip holds up its own unit and no other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from stages.base import ClipError, one_line
from stages.unit import Clip

AHEAD = 2  # clips taken in for each that is asked about, so that no thread waits for the next unit's frames
GRACE_S = 10.0  # a run that is stopped lets answers under way arrive for so long: they are paid for


@dataclass
class Flight:
    """A unit whose clips are being asked about."""

    unit: Any
    clips: list[Clip]
    answers: list[Any]
    left: int
    seconds: float = 0.0  # CPU seconds of its threads


@dataclass
class Line:
    """The parts of one unit leave in their order."""

    flights: deque[Flight] = field(default_factory=deque)

    def ready(self) -> Iterator[Flight]:
        while self.flights and self.flights[0].left == 0:
            yield self.flights.popleft()


def stream_concurrently(stage: Any, units: Iterable[Any], concurrency: int) -> Iterator[Any]:
    """Units through `stage.ask` and `stage.rows`; `concurrency` clips at a time, in the order they come.

    A unit is taken in only while fewer than AHEAD * concurrency clips wait, so memory stays bounded.
    """
    source = iter(units)
    lines: dict[str, Line] = {}
    running: dict[Future, tuple[Flight, int]] = {}
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="caption")
    try:
        ended = False
        while running or not ended:
            while not ended and len(running) < AHEAD * concurrency:
                unit = next(source, None)
                if unit is None:
                    ended = True
                    break
                clips = stage.ready_clips(unit)
                flight = Flight(unit, clips, [None] * len(clips), len(clips))
                lines.setdefault(unit.unit_id, Line()).flights.append(flight)
                for index, clip in enumerate(flight.clips):
                    running[pool.submit(_timed, stage.ask, clip)] = (flight, index)
                yield from _leave(stage, lines, unit.unit_id)
            done = wait(running, return_when=FIRST_COMPLETED).done if running else ()
            for future in done:
                flight, index = running.pop(future)
                flight.answers[index], spent = future.result()
                flight.seconds += spent
                flight.left -= 1
                yield from _leave(stage, lines, flight.unit.unit_id)
    finally:
        waited = [future for future in running if not future.cancel()]
        if waited:
            stage.halt()
            if wait(waited, timeout=GRACE_S).not_done:
                stage.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _leave(stage: Any, lines: dict[str, Line], unit_id: str) -> Iterator[Any]:
    line = lines[unit_id]
    for flight in line.ready():
        began = time.thread_time()
        try:
            rows = stage.rows(flight.clips, flight.answers)
        except Exception as error:
            rows = [ClipError(one_line(error))] * len(flight.clips)
        for clip, row in zip(flight.clips, rows, strict=True):
            stage.add(clip, row)
        spent = flight.seconds + time.thread_time() - began
        flight.unit.spent(stage.name, spent)
        yield flight.unit
    if not line.flights:
        del lines[unit_id]


def _timed(ask: Any, clip: Clip) -> tuple[Any, float]:
    began = time.thread_time()
    return ask(clip), time.thread_time() - began
