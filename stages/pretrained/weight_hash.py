"""Which weights these are: a sha256 over tensors by name, whatever files they lie in. Read without torch."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base import SettingsError, one_line

BLOCK = 1 << 22  # bytes hashed at a time
MOST_HEADER = 100 << 20  # bytes; safetensors itself allows no more
# As torch names them, so that the hash of a file is that of the tensors loaded from it.
DTYPES = {
    "F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16", "BF16": "torch.bfloat16",
    "I64": "torch.int64", "I32": "torch.int32", "I16": "torch.int16", "I8": "torch.int8", "U8": "torch.uint8",
    "BOOL": "torch.bool", "F8_E4M3": "torch.float8_e4m3fn", "F8_E5M2": "torch.float8_e5m2",
}  # fmt: skip
_KNOWN: dict[tuple[object, ...], str] = {}


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie in a safetensors file: `start` and `end` from the beginning of the file."""

    path: Path
    dtype: str  # as safetensors names it: F32, BF16, ...
    shape: tuple[int, ...]
    start: int
    end: int


def places(paths: Iterable[Path]) -> dict[str, Place]:
    """The tensors of safetensors files by name. Raises SettingsError, one line, for a file that is none."""
    found: dict[str, Place] = {}
    for path in paths:
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > min(size - 8, MOST_HEADER):
                    raise ValueError(f"it says that its header has {length} bytes, of {size}")
                header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                start, end = entry["data_offsets"]
                place = Place(path, entry["dtype"], tuple(entry["shape"]), 8 + length + start, 8 + length + end)
                if not 8 + length <= place.start <= place.end <= size:
                    raise ValueError(f"it ends before its tensor {name}")
                found[name] = place
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise SettingsError(f"{path} is no whole safetensors file: {one_line(error)[:200]}") from error
    return found


def floats(place: Place) -> tuple[float, ...]:
    """The numbers of a small tensor of floats. Raises SettingsError for another dtype."""
    with open(place.path, "rb") as file:
        file.seek(place.start)
        data = file.read(place.end - place.start)
    if place.dtype == "BF16":  # which numpy has not: the upper half of a float32
        return tuple((np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").tolist())
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    if place.dtype not in kinds:
        raise SettingsError(f"{place.path}: a tensor of {place.dtype} where floats were looked for")
    return tuple(np.frombuffer(data, kinds[place.dtype]).astype(float).tolist())


def fingerprint(head: str, paths: Iterable[Path], beside: Iterable[Path] = ()) -> str:
    """sha256 as hex of `head` (a config), then of every tensor with its name, dtype and shape, in order of names.

    Which of the safetensors files a tensor lies in, and where, is no part of it. Other files of weights (.bin) and
    those `beside` (a tokenizer's) go in by name and content. Remembered in this process while every file keeps its
    path, size and time of change. Raises SettingsError for a file that can't be read.
    """
    weights, other = sorted(paths), sorted(beside)
    try:
        stats = [(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in [*weights, *other]]
    except OSError as error:
        raise SettingsError(f"weights can't be read: {one_line(error)}") from error
    key = (head, tuple(stats))
    if key not in _KNOWN:
        _KNOWN[key] = _hashed(head, weights, other)
    return _KNOWN[key]


def _hashed(head: str, weights: list[Path], other: list[Path]) -> str:
    found = hashlib.sha256(head.encode())
    tensors = places(path for path in weights if path.suffix == ".safetensors")
    for name, place in sorted(tensors.items()):
        found.update(f"\n{name} {DTYPES.get(place.dtype, place.dtype)} {place.shape}\n".encode())
        _update(found, place.path, place.start, place.end)
    for path in [*(path for path in weights if path.suffix != ".safetensors"), *other]:
        found.update(f"\n{path.name}\n".encode())
        _update(found, path, 0, os.path.getsize(path))
    return found.hexdigest()


def _update(found: hashlib._Hash, path: Path, start: int, end: int) -> None:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            while start < end and (block := file.read(min(BLOCK, end - start))):
                found.update(block)
                start += len(block)
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {one_line(error)}") from error
