"""Ctrl-C and SIGTERM during a long command: the first asks it to stop in good order, the second ends it at once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

STOPPED = 130  # the exit code of a command that was asked to stop


class Interrupts:
    """A context manager that notes Ctrl-C and SIGTERM in `stop`; a second signal raises KeyboardInterrupt.

    Only the main thread can handle signals: in other threads `stop` stays unset unless the caller sets it.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._handlers: dict[int, Any] = {}  # of before, by signal

    @property
    def seen(self) -> bool:
        return self.stop.is_set()

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.stop.set()
        print("stopping after the work in hand (again: at once) …", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


def raise_if_stopped(code: int) -> None:
    """After one of several commands in a row: raises KeyboardInterrupt if it was stopped, so that no other starts."""
    if code == STOPPED:
        raise KeyboardInterrupt
