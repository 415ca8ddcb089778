"""What the benchmarks share: the machine's name, CPU seconds of a whole process tree, medians."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Cost:
    """Of one command: wall seconds, CPU seconds and peak resident bytes summed over its process tree."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    code: int


def run_tree(command: list[str], env: dict[str, str] | None = None, poll_s: float = 0.02) -> Cost:
    """Runs a command and sums over every process below it, also those nobody waits for (Ray's own).

    Rusage of the command alone would miss Ray's workers; each process is read every `poll_s` seconds, so up
    to that much of the end of a process is missed.
    """
    began = time.monotonic()
    process = psutil.Popen(
        command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    spent: dict[tuple[int, float], float] = {}
    peak = 0
    while True:
        resident = 0
        try:
            for one in [process, *process.children(recursive=True)]:
                try:
                    with one.oneshot():
                        times = one.cpu_times()
                        spent[(one.pid, one.create_time())] = times.user + times.system
                        resident += one.memory_info().rss
                except psutil.Error:
                    continue
        except psutil.Error:
            pass
        peak = max(peak, resident)
        if process.poll() is not None:
            break
        time.sleep(poll_s)
    return Cost(time.monotonic() - began, sum(spent.values()), peak, process.returncode)


def machine() -> dict[str, Any]:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def median(values: list[float]) -> float:
    return round(statistics.median(values), 4)


def interleaved(rounds: int, tasks: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each task once a round, in turn, so that a machine whose speed drifts treats all alike."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            found[name].append(task())
    return found


def peak_memory(stop: threading.Event, found: dict[str, int]) -> None:
    """Samples this process' resident bytes until told to stop; keeps the highest in found['peak']."""
    me = psutil.Process()
    while not stop.wait(0.05):
        found["peak"] = max(found.get("peak", 0), me.memory_info().rss)


def show(result: dict[str, Any]) -> None:
    json.dump({"machine": machine(), **result}, sys.stdout, indent=2)
    print()
