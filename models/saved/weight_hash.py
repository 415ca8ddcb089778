"""Identifies the weights of a network by one sha256 over its settings and tensors, wherever those are stored.

Importing this file loads no torch: stages.pretrained.weight_hash takes the same hash of files without loading them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Part = tuple[str, Iterable[bytes | memoryview]]  # a label, and bytes in pieces of any size


def hash_parts(head: str, parts: Iterable[Part]) -> str:
    """sha256 as 64 hex digits of `head` (settings as text), then of the label and the bytes of each part in turn."""
    found = hashlib.sha256(head.encode())
    for label, pieces in parts:
        found.update(f"\n{label}\n".encode("utf-8", "surrogateescape"))
        for piece in pieces:
            found.update(piece)
    return found.hexdigest()


def tensor_label(name: str, dtype: str, shape: tuple[int, ...]) -> str:
    """The label of a tensor; `dtype` as torch prints it, "torch.float32" for example."""
    return f"{name} {dtype} {shape}"


def state_hash(head: str, state: Mapping[str, Tensor]) -> str:
    """The hash of a `state_dict()`: every weight and buffer in order of names, whatever device they are on.

    Weights cast to another dtype are other weights, so take the hash before casting.
    """
    return hash_parts(head, (_tensor_part(name, tensor) for name, tensor in sorted(state.items())))


def _tensor_part(name: str, tensor: Tensor) -> Part:
    import torch

    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return tensor_label(name, str(tensor.dtype), tuple(tensor.shape)), [data]
