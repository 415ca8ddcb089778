"""Attention, forward and backward, by each kernel: lengths of sequence, widths of a head, and a mask over the text."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu.report import Report
from gpu.timing import median_seconds

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}  # fmt: skip
WIDTH = 1152  # heads x channels of a head, as in the size XL


def run(report: Report, device: str) -> None:
    gpu = device == "cuda"
    for length in (8192, 16384, 32768) if gpu else (256,):
        for name in ("flash", "cudnn") if gpu else ("math",):
            shapes = {f"h{head}": (length, length, head, False) for head in (64, 72, 96, 128)}
            report.case(f"{length} {name}", lambda shapes=shapes, name=name: rates(shapes, name, device), least=6)
    for name in ("efficient", "cudnn") if gpu else ("math",):
        queries = 8192 if gpu else 256
        shapes = {
            "257 masked": (queries, 257, 72, True), "320 masked": (queries, 320, 72, True),
            "256": (queries, 256, 72, False), "320 maskless": (queries, 320, 80, False),
        }  # fmt: skip
        report.case(f"keys {name}", lambda shapes=shapes, name=name: rates(shapes, name, device), least=4)


def rates(shapes: dict[str, tuple[int, int, int, bool]], backend: str, device: str) -> dict[str, Any]:
    """TFLOP/s of each shape; None where the kernel refuses it."""
    found: dict[str, float | None] = {}
    refused: dict[str, str] = {}
    for name, shape in shapes.items():
        try:
            found[name] = rate(*shape, backend, device)
        except RuntimeError as error:
            found[name], refused[name] = None, str(error).strip().splitlines()[0][:200]
    shown = ", ".join(f"{name} {'-' if each is None else format(each, '.3g')}" for name, each in found.items())
    return {"tflop_per_s": found, "refused": refused, "shown": shown}


def rate(queries: int, keys: int, head: int, masked: bool, backend: str, device: str) -> float:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    heads = WIDTH // head

    def made(length: int) -> Tensor:
        return torch.randn(1, heads, length, head, device=device, dtype=dtype, requires_grad=True)

    q, k, v = made(queries), made(keys), made(keys)
    mask = (torch.arange(keys, device=device) < keys - 20).expand(queries, -1) if masked else None
    upstream = torch.randn(1, heads, queries, head, device=device, dtype=dtype)

    def step() -> None:
        with sdpa_kernel(BACKENDS[backend]):
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        found.backward(upstream)
        q.grad = k.grad = v.grad = None

    took = median_seconds(step, device, most=1.0)
    return 3.5 * 4 * heads * head * queries * keys / took / 1e12  # backward: 2.5 times the forward pass's products
