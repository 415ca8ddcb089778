"""In which dtype a run computes its matrix products."""

from __future__ import annotations

from typing import Literal

import torch


def compute_dtype(config: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The dtype of matrix products; auto is bfloat16 on a GPU and float32 on a CPU."""
    bfloat16 = config == "bfloat16" or (config == "auto" and device.type == "cuda")
    return torch.bfloat16 if bfloat16 else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Inside, matrix products are computed in `dtype`. Does nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
