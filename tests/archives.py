"""Archives of films for tests: the films, what is said of them, and tar, zip and Parquet files that hold them."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from tests.hostile import write_video

Members = Iterable[tuple[str, bytes]]


@cache
def film(seed: int, frames: int = 24, width: int = 96, height: int = 64) -> bytes:
    """An MP4 of coloured noise that moves by a pixel a frame, another for each seed."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 255, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        write_video(file.name, (np.roll(ground, (i, 2 * i), (0, 1)) for i in range(frames)), fps=12)
        return Path(file.name).read_bytes()


def samples(count: int, **size: int) -> list[tuple[str, bytes]]:
    """KEY.json, KEY.mp4 and KEY.txt of so many films, as video2dataset writes them."""
    made = []
    for number in range(count):
        said = {"key": f"{number:09d}", "caption": f"film {number}", "status": "success", "clips": [[0.0, 2.0]]}
        for ending, data in (
            ("json", json.dumps(said).encode()),
            ("mp4", film(number, **size)),
            ("txt", f"text of {number}".encode()),
        ):
            made.append((f"{number:09d}.{ending}", data))
    return made


def write_tar(path: Path, members: Members, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, members: Members, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path
