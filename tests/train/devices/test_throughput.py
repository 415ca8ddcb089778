"""The measured peak is that of a product of random numbers, which costs a GPU the power that training does."""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode

from train.devices import throughput


class Products(TorchFunctionMode):
    """Keeps the operands of the matrix products inside it."""

    def __init__(self):
        super().__init__()
        self.operands = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.matmul or func is torch.Tensor.__matmul__:
            self.operands += args[:2]
        return func(*args, **(kwargs or {}))


def test_the_peak_is_measured_on_random_numbers(monkeypatch):
    monkeypatch.setattr(throughput, "SECONDS", 0.0)
    with Products() as seen:
        assert throughput.measured_peak(torch.device("cpu"), torch.float32) > 0
    for each in seen.operands:
        assert abs(float(each.mean())) < 0.05 and 0.9 < float(each.std()) < 1.1
