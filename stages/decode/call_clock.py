"""Time limits of one call of the decoder's child."""

from __future__ import annotations

import time

LONGEST_WAIT_S = 1e6  # for one byte; poll takes no longer time


class CallClock:
    """When to give up on a call: seconds without a byte, and seconds in all; excused time is free."""

    def __init__(self, stall_s: float | None, limit_s: float | None):
        self.stall_s, self.limit_s = stall_s, limit_s
        self._began = self._heard = time.monotonic()

    def alive(self) -> None:
        self._heard = time.monotonic()

    def excuse(self, seconds: float) -> None:
        self._began += seconds
        self._heard = time.monotonic()

    def remaining(self) -> float | None:
        """Seconds that may still be waited for the next byte; None: for ever."""
        ends = []
        if self.stall_s is not None:
            ends.append(self._heard + self.stall_s)
        if self.limit_s is not None:
            ends.append(self._began + self.limit_s)
        return min(LONGEST_WAIT_S, max(0.0, min(ends) - time.monotonic())) if ends else None

    def reason(self) -> str:
        if self.limit_s is not None and time.monotonic() >= self._began + self.limit_s:
            return f"took longer than {self.limit_s:g} s"
        return f"no progress for {self.stall_s:g} s"
