"""The driver's side of a Ray run: parcels go out a window ahead of the work, and what comes back is ticked off."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any

from curate.engines.chain import PartsInOrder
from curate.errors import EngineError
from stages.unit import Unit

PARCEL_SECONDS = 0.35  # work that one parcel should carry
PARCEL_UNITS = 64


class Dispatch:
    """Feeds parcels from the listing, never far ahead of the work, and knows which units are out."""

    def __init__(self, feeder: Any, units: Iterator[Unit], window: int):
        self.feeder, self.units, self.window = feeder, units, window
        self.out: dict[int, bytes] = {}
        self.waiting: dict[int, set[str]] = {}
        self.finished: list[int] = []
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self.stopped = False  # no further parcel goes out
        self.over = False  # the iteration has ended
        self.unit_seconds: float | None = None  # work of a unit, running mean
        self.parts = PartsInOrder()
        self.thread = threading.Thread(target=self._feed, name="clipmill-feed", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """No further parcel goes out."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def join(self) -> None:
        self.over = True
        self.stop()
        self.thread.join(timeout=2)

    @property
    def idle(self) -> bool:
        with self.changed:
            return not self.out

    def came_back(self, index: int, unit: Unit) -> list[Unit]:
        """What of it is news: a worker that died may have given the same before, or parts in another order."""
        with self.changed:
            waiting = self.waiting.get(index, set())
            if unit.unit_id not in waiting:
                return []
            parts = list(self.parts.add(unit))
            if parts and parts[-1].last:
                self._over(index, parts[-1])
        return parts

    def _over(self, index: int, unit: Unit) -> None:
        waiting = self.waiting[index]
        waiting.discard(unit.unit_id)
        if not waiting:
            del self.waiting[index], self.out[index]
            self.finished.append(index)
            self.changed.notify_all()
        spent = sum(unit.seconds.values())
        old = self.unit_seconds
        self.unit_seconds = spent if old is None else 0.9 * old + 0.1 * spent

    def _feed(self) -> None:
        import ray

        try:
            self._feed_until_the_end()
        except ray.exceptions.RayError as error:
            self.error = EngineError(f"Ray lost the feeder: {' '.join(str(error).split())[:200]}")

    def _feed_until_the_end(self) -> None:
        import ray

        born, index, ended = ray.get(self.feeder.born.remote()), 0, False
        checked = time.monotonic()
        while not self.stopped:
            parcel: list[Unit] = []
            if not ended:
                try:
                    parcel = self._next_parcel()
                except BaseException as error:
                    self.error = error
                ended = not parcel
            with self.changed:
                new = {}
                if parcel:
                    new[index] = self.out[index] = pickle.dumps(parcel, protocol=5)
                    self.waiting[index] = {unit.unit_id for unit in parcel}
                    index += 1
                finished, self.finished = self.finished, []
            ray.get(self.feeder.put.remote(new, finished, index if ended else None))
            if time.monotonic() - checked > 2:
                checked = time.monotonic()
                if (now := ray.get(self.feeder.born.remote())) != born:
                    born = now
                    with self.changed:
                        out, back = dict(self.out), [i for i in range(index) if i not in self.out]
                    ray.get(self.feeder.put.remote(out, back, index if ended else None))
            with self.changed:
                while not self.stopped and (len(self.out) >= self.window or (ended and not self.finished)):
                    if not self.changed.wait(timeout=2):
                        break  # look whether the feeder still lives
                if ended and not self.out:
                    return

    def _next_parcel(self) -> list[Unit]:
        spent = self.unit_seconds
        count = 1 if spent is None else int(min(PARCEL_UNITS, max(1, PARCEL_SECONDS / max(spent, 1e-4))))
        parcel = []
        for unit in self.units:
            parcel.append(unit)
            if len(parcel) >= count:
                break
        return parcel
