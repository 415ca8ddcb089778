"""Training on one process or many: which rank this process is, and weights on each rank or sharded over all.

`torchrun` tells each process its rank through the environment. Checkpoints hold whole tensors, so that a run can go on
with another number of ranks.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from models.transformers.dit import DiT
from models.transformers.layers.blocks import Block
from models.transformers.token_transformer import TokenTransformer

STATES = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps for each parameter


@dataclass
class Ranks:
    """This process's `rank` among `world` processes, and its device. Made by `init_ranks`."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over all ranks, the same on each."""
        if self.world > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def gathered(self, value: Any) -> list[Any]:
        """Each rank's value, in the order of ranks."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Blocks until all ranks have called it."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def init_ranks(device: str | None = None) -> Iterator[Ranks]:
    """Joins the processes that torchrun started, if it did. Each rank has a GPU where there are any; `device` "cpu"
    forces CPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available() if device is None else device == "cuda"
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if world == 1:
        yield Ranks(device=place)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield Ranks(dist.get_rank(), world, place)
        dist.barrier()  # a rank that ends early would fail messages that others still send to it
    finally:
        gc.collect()  # wrapped networks hold process groups in reference cycles, which may abort at exit
        dist.destroy_process_group()


def exit_process(code: int) -> None:
    """Ends a process that torchrun started, at once: gloo's threads may abort it on the way out, after all its work is
    done. Does nothing in a process that runs alone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def parallelize(
    network: DiT | TokenTransformer, ranks: Ranks, how: Literal["ddp", "fsdp"], dtype: torch.dtype
) -> nn.Module:
    """The module to call in training; the network's own parameters remain the ones to optimize.

    "ddp": whole weights on each rank. "fsdp": weights, gradients and optimizer states are sharded and gathered block by
    block (FSDP2); matrix products are in `dtype`, gradients are summed in float32.
    """
    if not dist.is_initialized():
        return network
    if how == "ddp":
        ids = [ranks.device.index] if ranks.device.type == "cuda" else None
        # A step of images uses no weights of the attention along time.
        unused = getattr(network.settings, "attention", "full") == "factorised"
        return nn.parallel.DistributedDataParallel(
            network, device_ids=ids, find_unused_parameters=unused, broadcast_buffers=False
        )
    mesh = dist.init_device_mesh(ranks.device.type, (ranks.world,))
    mixed = dtype != torch.float32
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False) if mixed else MixedPrecisionPolicy()
    for block in [each for each in network.modules() if isinstance(each, Block)]:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)  # in place
    if isinstance(network, TokenTransformer):
        register_fsdp_forward_method(network, "generate")  # else its weights would not be gathered
    return network


@contextmanager
def defer_grad_sync(module: nn.Module, defer: bool) -> Iterator[None]:
    """Inside, with `defer`, gradients are not summed over ranks, as more micro-batches of the step follow."""
    if isinstance(module, nn.parallel.DistributedDataParallel) and defer:
        with module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(not defer)
    yield


def copy_into(tensor: Tensor, values: Tensor) -> None:
    """Copies `values`, which every rank has whole, into a tensor that may be sharded."""
    with torch.no_grad():
        tensor.copy_(_like(tensor, values))


def full_states(tensors: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """A copy of each tensor, whole and on the CPU, on the first rank; {} on the others, which must call it too."""
    found = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        full, own = (tensor.full_tensor(), tensor.to_local()) if isinstance(tensor, DTensor) else (tensor, tensor)
        if ranks.first:  # what was gathered from other ranks is a copy already
            found[name] = full.to("cpu", copy=full.data_ptr() == own.data_ptr()).contiguous()
    return found


def optimizer_states(network: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """AdamW's states by parameter name: "blocks.0.mlp.0.weight.exp_avg"."""
    kept = {name: optimizer.state.get(parameter, {}) for name, parameter in network.named_parameters()}
    return {f"{name}.{key}": state[key] for name, state in kept.items() for key in STATES if key in state}


def load_optimizer_states(network: nn.Module, optimizer: torch.optim.AdamW, states: dict[str, Tensor]) -> None:
    """Loads what `optimizer_states` gave into an optimizer that has made no step."""
    for name, parameter in network.named_parameters():
        for key in STATES:
            if (values := states.get(f"{name}.{key}")) is None:
                continue
            # The step count stays where AdamW makes it: on the CPU, unless the optimizer is fused.
            place = parameter.device if key != "step" or optimizer.defaults["fused"] else "cpu"
            kept = values.to(place, copy=True) if key == "step" else _like(parameter, values)
            optimizer.state[parameter][key] = kept


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    """A copy of `values` on the device, in the dtype and with the sharding of `tensor`."""
    values = values.to(tensor.device, tensor.dtype, copy=True)
    if isinstance(tensor, DTensor):
        return distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)
    return values
