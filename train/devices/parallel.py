"""One process or many: who this one is among them, and weights on each rank or shared out among all.

`torchrun` says through the environment who is who. Whole tensors go into checkpoints and come out of them, so that a
run goes on with another number of ranks.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

STATES = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps of a parameter


@dataclass
class Ranks:
    """This process among `world`; `device` is its own. Made by `started`."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Of all ranks, elementwise; the same on each."""
        if self.world > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def gathered(self, value: Any) -> list[Any]:
        """What each rank gives, in their order."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def init_ranks(device: str | None = None) -> Iterator[Ranks]:
    """This process as torchrun started it, or alone. A GPU each where there are any; `device` "cpu" forces CPUs."""
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
        dist.barrier()  # one that left early would be missed by what the others still have to say to it
    finally:
        gc.collect()  # networks that are parallelize hold groups in cycles: one that is left to the exit may abort it
        dist.destroy_process_group()


def exit_process(code: int) -> None:
    """Ends a process that torchrun started, at once: gloo's threads may abort one that takes its time to end, after
    all its work is done. Does nothing to a process that is alone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def parallelize(network: nn.Module, ranks: Ranks, how: str, dtype: torch.dtype) -> nn.Module:
    """The module to be called in training; the network's own parameters stay the ones to be optimised.

    "ddp": whole weights on each rank. "fsdp": weights, gradients and optimiser shared out, gathered block by block
    (FSDP2); its matrix products are in `dtype`, gradients are summed in float32.
    """
    if ranks.world == 1:
        return network
    if how == "ddp":
        ids = [ranks.device.index] if ranks.device.type == "cuda" else None
        # Attention along time has no part in a step of pictures.
        unused = getattr(network.settings, "attention", "full") == "factorised"
        return nn.parallel.DistributedDataParallel(
            network, device_ids=ids, find_unused_parameters=unused, broadcast_buffers=False
        )
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = dist.init_device_mesh(ranks.device.type, (ranks.world,))
    mixed = dtype != torch.float32
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False) if mixed else MixedPrecisionPolicy()
    for name in ("mixer", "blocks"):
        for block in getattr(network, name, []):
            fully_shard(block, mesh=mesh, mp_policy=policy)
    return fully_shard(network, mesh=mesh, mp_policy=policy)


@contextmanager
def defer_grad_sync(module: nn.Module, later: bool) -> Iterator[None]:
    """Inside, with `later`, gradients stay on their rank: more of the same step are to come."""
    if not later or not hasattr(module, "no_sync"):
        if hasattr(module, "set_requires_gradient_sync"):
            module.set_requires_gradient_sync(not later)
        yield
    else:
        with module.no_sync():
            yield


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each rank may have a part. Every rank must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_into(tensor: Tensor, values: Tensor) -> None:
    """`values`, which every rank has whole, into a tensor of which each may have a part."""
    with torch.no_grad():
        tensor.copy_(_like(tensor, values))


def full_states(tensors: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Each tensor whole and on the CPU, on the first rank; nothing on the others, which must ask all the same."""
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if ranks.first:
            found[name] = full.cpu()
    return found


def optimizer_states(network: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """What AdamW keeps, by parameter's name: "blocks.0.mlp.0.weight.exp_avg"."""
    kept = {name: optimizer.state.get(parameter, {}) for name, parameter in network.named_parameters()}
    return {f"{name}.{key}": state[key] for name, state in kept.items() for key in STATES if key in state}


def load_optimizer_states(network: nn.Module, optimizer: torch.optim.AdamW, states: dict[str, Tensor]) -> None:
    """The other way round, for an optimiser that has made no step."""
    for name, parameter in network.named_parameters():
        for key in STATES:
            if (values := states.get(f"{name}.{key}")) is None:
                continue
            # The count of steps stays where AdamW makes it: on the CPU, unless it is fused.
            place = parameter.device if key != "step" or optimizer.defaults["fused"] else "cpu"
            kept = values.to(place, copy=True) if key == "step" else _like(parameter, values)
            optimizer.state[parameter][key] = kept


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    values = values.to(tensor.device, tensor.dtype, copy=True)
    if isinstance(tensor, DTensor):
        return distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)
    return values
