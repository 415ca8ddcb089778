"""What a model's files hold, as a short hash: the revision that stands beside its scores."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import xxhash

PIECE = 1 << 24  # bytes read at a time


def revision_of(files: Iterable[Path]) -> str:
    """16 hex digits over the names and the bytes of these files, whatever their order and wherever they lie."""
    digest = xxhash.xxh3_64()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    return digest.hexdigest()
