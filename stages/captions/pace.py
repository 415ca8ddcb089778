"""How fast a server is asked: requests evenly spread under a limit a minute, and a pause when it asks for one."""

from __future__ import annotations

import datetime
import email.utils
import random
import threading
import time


class Stopped(Exception):
    """The run is over; nobody waits for this answer any more."""


class Clock:
    """Seconds that only rise, and waiting. Tests pass one on which no time passes unless somebody waits."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Whether the event was set within so many seconds."""
        return event.wait(seconds)


class Pace:
    """Shared by all threads that ask one server."""

    def __init__(self, requests_per_minute: float | None, clock: Clock):
        self._gap = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._clock = clock
        self._next = clock.now()  # when the next request may begin
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def wait_for_turn(self) -> float:
        """Waits until this request may begin and returns the seconds that took."""
        began = self._clock.now()
        with self._lock:
            turn = max(began, self._next)
            self._next = turn + self._gap
        self.sleep(turn - began)
        return self._clock.now() - began

    def hold(self, seconds: float) -> None:
        """No request begins before so many seconds from now: the server said so to one, and meant all."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)

    def sleep(self, seconds: float) -> None:
        """Raises Stopped when the run is over."""
        if self._clock.wait(self._stop, max(0.0, seconds)):
            raise Stopped

    def stop(self) -> None:
        """Wakes everyone who waits, for good."""
        self._stop.set()


def backoff(attempt: int, base: float, most: float = 60.0) -> float:
    """Seconds before retry number `attempt` (from 0): doubling, half of it random, so that clients that failed
    together do not come back together.
    """
    return min(most, base * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1.0)


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; None if there is no such header
    or it can't be read.
    """
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
