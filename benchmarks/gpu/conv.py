"""The convolutions that take most of the VAE's time, in each way to compute them: what the encoder can hope for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu.report import Report
from gpu.timing import median_seconds
from models.settings.vae import sized
from models.vae.causal_vae import CausalVAE
from models.vae.layers.causal_ops import CausalConv3d

SHAPES = 8
LIMIT = 2**31  # elements of one tensor, from which cuDNN has no fast kernels


@dataclass(frozen=True)
class Shape:
    """Of a convolution's input, padded in time as the layer pads it, with its weight."""

    channels: int
    out: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    size: tuple[int, ...]  # T, H, W

    def outputs(self) -> tuple[int, ...]:
        pads = (0, *(k // 2 for k in self.kernel[1:]))
        return tuple(
            (n + 2 * p - k) // s + 1 for n, p, k, s in zip(self.size, pads, self.kernel, self.stride, strict=True)
        )

    def flops(self) -> int:
        return 2 * self.channels * self.out * math.prod(self.kernel) * math.prod(self.outputs())

    def __str__(self) -> str:
        return f"{self.channels}-{self.out} k{self.kernel[0]} {'x'.join(map(str, self.size))}"


def run(report: Report, device: str) -> None:
    gpu = device == "cuda"
    dtype = torch.bfloat16 if gpu else torch.float32
    for shape, count in costliest("published" if gpu else "debug", (81, 256, 256) if gpu else (9, 32, 32)):
        report.case(str(shape), lambda shape=shape, count=count: ways(shape, count, device, dtype), least=3)
    if gpu:
        beyond = Shape(128, 128, (3, 3, 3), (1, 1, 1), (83 * 4, 256, 256))
        assert beyond.channels * math.prod(beyond.size) > LIMIT
        report.case("beyond 2^31 elements", lambda: ways(beyond, 1, device, dtype, only="channels last"), least=5)


def costliest(size: str, clip: tuple[int, int, int]) -> list[tuple[Shape, int]]:
    """The encoder's convolutions with the most FLOPs in all, and how often each runs; found on meta tensors."""
    found: Counter[Shape] = Counter()

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, CausalConv3d)
        frames, height, width = inputs[0].shape[2:]
        padded = (frames + layer.kernel_size[0] - 1, height, width)
        found[Shape(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, padded)] += 1

    with torch.device("meta"), torch.inference_mode():
        vae = CausalVAE(sized(size, variant=4))
        for layer in vae.encoder.modules():
            if isinstance(layer, CausalConv3d):
                layer.register_forward_pre_hook(look)
        vae.encode(torch.empty(1, 3, *clip))
    return sorted(found.items(), key=lambda each: -each[0].flops() * each[1])[:SHAPES]


def ways(shape: Shape, count: int, device: str, dtype: torch.dtype, only: str | None = None) -> dict[str, Any]:
    x = torch.randn(1, shape.channels, *shape.size, device=device, dtype=dtype)
    weight = torch.randn(shape.out, shape.channels, *shape.kernel, device=device, dtype=dtype)
    last = x.contiguous(memory_format=torch.channels_last_3d)
    weight_last = weight.contiguous(memory_format=torch.channels_last_3d)
    padding = (0, *(k // 2 for k in shape.kernel[1:]))
    tasks = {
        "channels first": lambda: F.conv3d(x, weight, None, shape.stride, padding),
        "channels last": lambda: F.conv3d(last, weight_last, None, shape.stride, padding),
        "as conv2d": lambda: in_2d(last, weight, shape),
    }
    rates: dict[str, float] = {}
    with torch.inference_mode():
        for name, task in tasks.items():
            for tuned in (False, True) if device == "cuda" else (False,):
                if only is None or name == only:
                    torch.backends.cudnn.benchmark = tuned
                    took = median_seconds(task, device, rounds=5, warm=2, most=1.0)
                    rates[name + (", benchmark" if tuned else "")] = round(shape.flops() / took / 1e12, 3)
    torch.backends.cudnn.benchmark = False
    best = max(rates, key=rates.__getitem__)
    shown = f"best {rates[best]} TFLOP/s ({best}); channels first {rates.get('channels first', '-')}"
    return {"runs_in_the_encoder": count, "tflop": shape.flops() / 1e12, "tflop_per_s": rates, "shown": shown}


def in_2d(x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """One 2D convolution per frame of the kernel, added up; all frames at once, as a batch."""
    frames, step = shape.outputs()[0], shape.stride[0]
    total: Tensor | None = None
    for tap in range(shape.kernel[0]):
        images = x[:, :, tap : tap + (frames - 1) * step + 1 : step].transpose(1, 2).flatten(0, 1)
        found = F.conv2d(images, weight[:, :, tap], None, shape.stride[1:], tuple(k // 2 for k in shape.kernel[1:]))
        total = found if total is None else total.add_(found)
    assert total is not None
    return total
