"""Identifies the weights of a model on disk, by the same hash that models.saved.weight_hash takes of weights in memory.

Tensors of safetensors files are hashed one by one, streamed from the file; torch is not loaded.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.saved.weight_hash import Part, hash_parts, tensor_label
from stages.base import SettingsError, one_line

REVISION_DIGITS = 16  # of a hash: what the columns `revision` and the versions of stages keep of it
BLOCK = 1 << 22  # bytes hashed at a time
MOST_HEADER = 100 << 20  # bytes; safetensors itself allows no more
# As torch names them, so that the hash of a file is that of the tensors loaded from it.
DTYPES = {
    "F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16", "BF16": "torch.bfloat16",
    "I64": "torch.int64", "I32": "torch.int32", "I16": "torch.int16", "I8": "torch.int8", "U8": "torch.uint8",
    "BOOL": "torch.bool", "F8_E4M3": "torch.float8_e4m3fn", "F8_E5M2": "torch.float8_e5m2",
}  # fmt: skip
_HASHES: dict[tuple[object, ...], str] = {}  # by head, and path, size and time of change of every file


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor's bytes are in a safetensors file: `start` and `end` count from the beginning of the file."""

    path: Path
    dtype: str  # as safetensors names it: F32, BF16, ...
    shape: tuple[int, ...]
    start: int
    end: int


def tensor_places(paths: Iterable[Path]) -> dict[str, TensorPlace]:
    """The tensors of safetensors files by name. Raises SettingsError, one line, for a file that is damaged."""
    found: dict[str, TensorPlace] = {}
    for path in paths:
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > min(size - 8, MOST_HEADER):
                    raise ValueError(f"its header should have {length} bytes, the file has {size}")
                header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                start, end = entry["data_offsets"]
                place = TensorPlace(path, entry["dtype"], tuple(entry["shape"]), 8 + length + start, 8 + length + end)
                if not 8 + length <= place.start <= place.end <= size:
                    raise ValueError(f"it ends before its tensor {name}")
                found[name] = place
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise SettingsError(f"{path} is no whole safetensors file: {one_line(error)[:200]}") from error
    return found


def read_floats(place: TensorPlace) -> tuple[float, ...]:
    """The numbers of a small tensor of floats. Raises SettingsError for another dtype."""
    with open(place.path, "rb") as file:
        file.seek(place.start)
        data = file.read(place.end - place.start)
    if place.dtype == "BF16":  # numpy has no bfloat16: it is the upper half of a float32
        return tuple((np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").tolist())
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    if place.dtype not in kinds:
        raise SettingsError(f"{place.path}: a tensor of {place.dtype} where floats are expected")
    return tuple(np.frombuffer(data, kinds[place.dtype]).astype(float).tolist())


def files_hash(head: str, weights: Iterable[Path], beside: Iterable[Path] = ()) -> str:
    """sha256 as hex of `head` (a config), then of every tensor with its name, dtype and shape, in order of names.

    Which of the safetensors files a tensor is in, and at which place, does not change the hash. Other files of weights
    (.bin, .onnx) and those `beside` (a tokenizer's) count with their name and content. The result is cached in this
    process while every file keeps its path, size and time of change. Raises SettingsError for an unreadable file.
    """
    ordered = [sorted(paths, key=lambda path: path.name) for paths in (weights, beside)]
    files = [path for paths in ordered for path in paths]
    try:
        stats = [(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in files]
    except OSError as error:
        raise SettingsError(f"weights can't be read: {one_line(error)}") from error
    key = (head, tuple(stats))
    if key not in _HASHES:
        _HASHES[key] = hash_parts(head, _parts(*ordered))
    return _HASHES[key]


def _parts(weights: list[Path], beside: list[Path]) -> Iterator[Part]:
    tensors = tensor_places(path for path in weights if path.suffix == ".safetensors")
    for name, place in sorted(tensors.items()):
        dtype = DTYPES.get(place.dtype, place.dtype)
        yield tensor_label(name, dtype, place.shape), _blocks(place.path, place.start, place.end)
    for path in [*(path for path in weights if path.suffix != ".safetensors"), *beside]:
        yield path.name, _blocks(path, 0, os.path.getsize(path))


def _blocks(path: Path, start: int, end: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            while start < end and (block := file.read(min(BLOCK, end - start))):
                yield block
                start += len(block)
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {one_line(error)}") from error
