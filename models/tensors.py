"""Tensors by name to a safetensors file and back, with errors in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.files import whole_file


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """The file is whole or as it was. Raises OSError where it can't be written (a full disk, for one)."""
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    try:
        with whole_file(path) as temporary:
            save_file(state, temporary)
    except SafetensorError as error:
        raise OSError(f"{path} can't be written ({error})") from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """On the CPU. Raises OSError where there is no such file, ValueError, in one line, where it is damaged."""
    try:
        # Cloned out of the mapped file: it may be removed while the tensors are in use, and kernels may round
        # differently where memory is not aligned.
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(str(error).splitlines()[0]) from error
