"""How fast a server is asked: requests evenly spread under a limit a minute, and a pause when it asks for one."""

from __future__ import annotations

import datetime
import email.utils
import random
import threading
import time


class Stopped(Exception):
    """The run is over; nobody waits for this answer any more."""


class Pace:
    """Shared by all threads that ask one server."""

    def __init__(self, requests_per_minute: float | None):
        self._gap = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next = 0.0  # monotonic seconds of the next free slot
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def turn(self) -> float:
        """Waits for this request's turn and returns the seconds that took."""
        began = time.monotonic()
        with self._lock:
            slot = max(began, self._next)
            self._next = slot + self._gap
        self.sleep(slot - began)
        return time.monotonic() - began

    def hold(self, seconds: float) -> None:
        """No request begins before so many seconds from now: the server said so to one, and meant all."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped

    def stop(self) -> None:
        """Wakes everyone who waits, for good."""
        self._stop.set()


def backoff(attempt: int, base: float, most: float = 60.0) -> float:
    """Seconds before retry number `attempt` (from 0): doubling, half of it by chance, so that clients that
    failed together do not come back together.
    """
    return min(most, base * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1.0)


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; None where it asks nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())
