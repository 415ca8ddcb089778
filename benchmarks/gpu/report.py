"""The lines that a part of the GPU check leaves: one JSON object per case, on disk before the next case begins."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.out_of_memory import is_out_of_memory

LINES = "lines.jsonl"


def write_line(folder: Path, line: dict[str, Any]) -> None:
    with open(folder / LINES, "a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


class Report:
    """Of one part, with `seconds` to go. A case that fails leaves a line that says how, and the next one begins."""

    def __init__(self, folder: Path, part: str, seconds: float):
        self.folder, self.part, self.end = folder, part, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the part is ended from outside."""
        return self.end - time.monotonic()

    def case(self, name: str, work: Callable[[], dict[str, Any]], least: float = 0) -> dict[str, Any]:
        """Runs one case and writes its line. `work` returns what was measured: `shown` is what the table says of it,
        and `ok` False that a comparison failed. A case is left out, with a line, if fewer than `least` seconds remain.
        """
        began = time.monotonic()
        if self.left() < least:
            line: dict[str, Any] = {"left_out": f"{self.left():.0f} s of the part's time remain, {least:.0f} needed"}
        else:
            try:
                line = work()
            except (ImportError, MemoryError, RuntimeError, ValueError, AssertionError, AttributeError) as error:
                text = str(error).strip() or type(error).__name__
                failed = f"{type(error).__name__}: {text.splitlines()[0][:300]}"
                line = {"failed": failed, "memory": is_out_of_memory(error)}
        line = {"part": self.part, "case": name, "s": round(time.monotonic() - began, 2), **line}
        write_line(self.folder, line)
        free()
        return line


def free() -> None:
    """Gives the memory of the last case back to the device."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
