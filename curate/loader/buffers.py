"""Memory of batches, which is reused: fresh pages of memory cost as much time as reading does.

A buffer is lent as a tensor and is free again when that tensor and every view of it are gone, so a batch that
somebody keeps is never overwritten; the loader then takes another buffer.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ALIGNED = 256  # bytes: every field begins at a multiple, for copies and for tensors of any dtype
TORCH = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


@dataclass(frozen=True)
class Part:
    """The place of a field in a batch's memory: rows of `row_bytes` each, from `offset` on."""

    dtype: str
    shape: tuple[int, ...]  # of the whole batch, (rows, ...)
    offset: int
    row_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.row_bytes * self.shape[0]


class Layout:
    """The places of all fields of a batch in one piece of memory, so that one copy moves them all."""

    def __init__(self, rows: int, fields: dict[str, tuple[str, tuple[int, ...]]]):
        """`fields`: name -> dtype and shape of one sample."""
        self.rows = rows
        self.parts: dict[str, Part] = {}
        self.bytes = 0
        for name, (dtype, shape) in fields.items():
            size = int(np.prod(shape)) * TORCH[dtype].itemsize
            part = self.parts[name] = Part(dtype, (rows, *shape), self.bytes, size)
            self.bytes = -(-part.end // ALIGNED) * ALIGNED

    def arrays(self, memory: np.ndarray) -> dict[str, np.ndarray]:
        """Views of a batch's memory (uint8) as bytes: name -> (rows, bytes of a row)."""
        return {n: memory[p.offset : p.end].reshape(self.rows, p.row_bytes) for n, p in self.parts.items()}

    def tensors(self, memory: Tensor) -> dict[str, Tensor]:
        """Views of a batch's memory (uint8) on any device: name -> (rows, ...) in the stored dtype."""
        return {name: memory[p.offset : p.end].view(TORCH[p.dtype]).view(p.shape) for name, p in self.parts.items()}


class Buffer:
    """One piece of memory, pinned if a GPU is to copy from it."""

    def __init__(self, size: int, pinned: bool):
        self._base = torch.empty(size, dtype=torch.uint8, pin_memory=pinned).numpy()
        self._lent: weakref.ref[np.ndarray] | None = None
        self._copied: torch.cuda.Event | None = None
        self.taken = False  # being filled

    @property
    def array(self) -> np.ndarray:
        return self._base

    @property
    def free(self) -> bool:
        lent = self._lent is not None and self._lent() is not None
        return not (self.taken or lent or (self._copied is not None and not self._copied.query()))

    def lend(self, size: int) -> Tensor:
        """The first `size` bytes as a tensor; the buffer is not free until that and all views of it are gone."""
        view = self._base[:size]  # a new object, which every view of the tensor keeps alive
        self._lent = weakref.ref(view)
        self.taken = False
        return torch.from_numpy(view)

    def copied(self, event: torch.cuda.Event) -> None:
        """The buffer is not free until this event of the GPU has happened."""
        self._copied = event


class Buffers:
    """A pool of buffers that grows when none is free."""

    def __init__(self, pinned: bool):
        self.pinned = pinned
        self.all: list[Buffer] = []

    def take(self, size: int) -> Buffer:
        free = [buffer for buffer in self.all if buffer.free]
        found = next((buffer for buffer in free if len(buffer.array) >= size), None)
        if found is None:
            if free:  # but too small: a larger one replaces it
                self.all.remove(free[0])
            found = Buffer(size, self.pinned)
            self.all.append(found)
        found.taken = True
        return found
