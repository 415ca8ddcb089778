"""A VAE on a GPU that is not there: tensors with a shape, strides and the device `cuda`, without numbers.

No public interface of torch shows which memory format a GPU's convolutions get where there is none: tensors on `meta`
follow other rules than those on `cuda`. Hence torch's own FakeTensorMode and what shows its operations and the graphs
that Inductor gets, in tests alone. It decides as for float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def fake_gpu() -> Iterator[None]:
    with FakeTensorMode():
        yield


def moved(network: nn.Module) -> nn.Module:
    """The network with all its weights and buffers on the GPU, in their memory format. Call it inside `fake_gpu`."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(_there(weight), requires_grad=weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _there(buffer)
    return network


def _there(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")


class Seen(TorchDispatchMode):
    """What convolutions got inside, (input, weight) each, and the elements of the largest tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions: list[tuple[Tensor, Tensor]] = []
        self.largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        if operation.name() == "aten::convolution":
            self.convolutions.append((args[0], args[1]))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.numel())
        return found


def in_channels_last(tensor: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.is_contiguous(memory_format=formats[tensor.ndim])


def inductor_graphs(take: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A backend for torch.compile that gives `take` each graph, of the operations that Inductor generates code for."""
    return aot_autograd(fw_compiler=take, decompositions=select_decomp_table())
