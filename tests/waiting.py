"""Waits for a condition that another thread or process brings about, with a limit that only a hang reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

HANGS_S = 300


def wait_until(condition: Callable[[], object]) -> None:
    """Looks every 10 ms until the condition holds; AssertionError after five minutes."""
    end = time.monotonic() + HANGS_S
    while not condition():
        assert time.monotonic() < end, f"waited {HANGS_S} s in vain"
        time.sleep(0.01)
