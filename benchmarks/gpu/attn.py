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
    lengths, names = ((8192, 16384, 32768), ("flash", "cudnn")) if gpu else ((256,), ("math",))
    for length in lengths:
        for head in (64, 72, 96, 128):
            for name in names:
                work = lambda length=length, head=head, name=name: rate(length, length, head, name, device)  # noqa: E731
                report.case(f"{length} h{head} {name}", work, least=2)
    for name in ("efficient", "cudnn") if gpu else ("math",):
        for keys, masked in ((257, True), (320, True), (256, False)):
            work = lambda keys=keys, masked=masked, name=name: rate(lengths[0], keys, 72, name, device, masked)  # noqa: E731
            report.case(f"{keys} keys{' masked' if masked else ''} {name}", work, least=2)


def rate(queries: int, keys: int, head: int, backend: str, device: str, masked: bool = False) -> dict[str, Any]:
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

    took = median_seconds(step, device, most=1.5)
    speed = 3.5 * 4 * heads * head * queries * keys / took / 1e12  # backward: 2.5 times the forward pass's products
    return {"tflop_per_s": speed, "ms": took * 1e3, "shown": f"{speed:.4g} TFLOP/s, {took * 1e3:.3g} ms"}
