"""Recognises a failed allocation by its message: torch, cuDNN and cuBLAS raise RuntimeErrors for many other reasons."""

from __future__ import annotations

MESSAGES = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    "unable to find an engine",  # what cuDNN says where none of its kernels finds room for its workspace
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what the error says, of the memory of a CPU or of a GPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in MESSAGES)
