"""Ctrl-C and SIGTERM during a run: what is finished is committed first."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

STOPPED = 130  # the exit code of what was asked to stop


class Interrupts:
    """Ctrl-C asks the run to stop after the unit in hand; a second one stops at once."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    @property
    def seen(self) -> bool:
        return self.stop.is_set()

    def __enter__(self) -> Interrupts:
        self.old = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.stop.set()
        print("stopping after the work in hand (again: at once) …", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)


def go_on(code: int) -> None:
    """Behind a step of several: raises KeyboardInterrupt where it was asked to stop, so that the rest is left too."""
    if code == STOPPED:
        raise KeyboardInterrupt
