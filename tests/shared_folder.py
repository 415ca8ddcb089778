"""Makes an expensive folder once for all workers of pytest-xdist, where a session fixture is made once in each."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

Found = TypeVar("Found")


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Found]) -> tuple[Path, Found]:
    """(folder, what `make(folder)` returned). The first worker that asks makes it; others wait for it and read it.

    The folder is not there when `make` is called. What it returns must be picklable.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of the workers' own base folders
    folder, answer = base / "shared" / name, base / "shared" / f"{name}.pickle"
    folder.parent.mkdir(exist_ok=True)
    with open(folder.parent / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answer.exists():
            answer.write_bytes(pickle.dumps(make(folder)))
        return folder, pickle.loads(answer.read_bytes())
