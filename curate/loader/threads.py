"""The reader threads of a loader. They wait in system calls, which release Python's lock."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable


class Threads:
    """Runs calls in the order of `put`. The threads start at the first one, and end at `close` or when nothing refers
    to this object any more.
    """

    def __init__(self, count: int):
        self.count = count
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = False
        self._end = weakref.finalize(self, _end, self._calls, count)

    def put(self, call: Callable[[], None]) -> None:
        if not self._started:
            self._started = True
            for number in range(self.count):
                name = f"clipmill-loader-{number}"
                threading.Thread(target=_work, args=(self._calls,), name=name, daemon=True).start()
        self._calls.put(call)

    def close(self) -> None:
        self._end()


def _work(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # it holds a buffer


def _end(calls: queue.SimpleQueue[Callable[[], None] | None], count: int) -> None:
    for _ in range(count):
        calls.put(None)
