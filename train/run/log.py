"""The log of a training run: a line of JSON for every step, TensorBoard where it is installed, progress lines on
stderr.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from models.files import write_whole

LINES = "log.jsonl"
CONSOLE_SECONDS = 10.0

Sink = Callable[[int, dict[str, float]], None]  # called with the step and its numbers by flat name


class Log:
    """Writes `folder`/log.jsonl, and the same numbers to `folder`/tensorboard and `sinks` (such as W&B).

    `after` is the step that a run is resumed from: lines of later steps, which will be made again, are removed, and so
    is a line that a killed process left unfinished. Without it only unfinished lines are removed.
    """

    def __init__(self, folder: str | Path, after: int | None = None, sinks: tuple[Sink, ...] = ()):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LINES
        if self.path.exists():
            _remove_later(self.path, after)
        self.file = self.path.open("a", encoding="utf-8")
        self.sinks = [*sinks]
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=None if after is None else after + 1)

    def write(self, step: int, **numbers: Any) -> None:
        """Writes one line. A dict of numbers is nested in JSON and "name/key" elsewhere. NaN and infinity become null,
        as JSON has no word for them, and "not_finite" in the line says which.
        """
        line = {"step": step, **numbers}
        flat = dict(_flat(numbers))
        if wrong := [name for name, value in flat.items() if not math.isfinite(value)]:
            line = {**_finite(line), "not_finite": {name: str(flat[name]) for name in wrong}}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in flat.items():
                self.board.add_scalar(name, value, step)
        for sink in self.sinks:
            sink(step, flat)

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without damaged ones such as an unfinished last line."""
    path = Path(folder) / LINES
    return _whole_lines(path.read_bytes()) if path.exists() else []


class Console:
    """Progress lines on stderr, at most one every ten seconds: step, numbers, rate and time left."""

    def __init__(self, name: str, steps: int, seconds: float = CONSOLE_SECONDS, quiet: bool = False):
        self.name, self.steps, self.seconds, self.quiet = name, steps, seconds, quiet
        self.shown = 0.0
        # The first step done, and when: the rate does not count its compiling.
        self.first: tuple[int, float] | None = None

    def step(self, step: int, numbers: Mapping[str, Any]) -> None:
        """`step` steps are done."""
        now = time.monotonic()
        self.first = self.first or (step, now)
        if self.quiet or (now - self.shown < self.seconds and step != self.steps):
            return
        self.shown, pace = now, ""
        if step > self.first[0]:
            rate = (step - self.first[0]) / max(now - self.first[1], 1e-9)
            left = "" if step == self.steps else f" · {_duration((self.steps - step) / rate)} left"
            pace = f" · {rate:.2f} steps/s{left}" if rate >= 1 else f" · {1 / rate:.2f} s/step{left}"
        self.say(f"{self.name} {step:,}/{self.steps:,} · {self.text(numbers)}{pace}")

    def text(self, numbers: Mapping[str, Any]) -> str:
        """The numbers of a step with their names."""
        return " · ".join(f"{name} {_short(value)}" for name, value in numbers.items())

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


def _remove_later(path: Path, after: int | None) -> None:
    lines = [each for each in _whole_lines(path.read_bytes()) if after is None or each["step"] <= after]
    write_whole(path, "".join(json.dumps(each) + "\n" for each in lines))


def _whole_lines(text: bytes) -> list[dict[str, Any]]:
    """The lines that are JSON objects with a step."""
    lines = []
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:  # unfinished, or not UTF-8
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            lines.append(found)
    return lines


def _flat(numbers: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Numbers by name, nested ones as "name/key"."""
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{before}{name}", float(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
