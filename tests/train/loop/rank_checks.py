"""What torchrun starts for test_rank_checks.py: each check on every rank, its findings in a JSON file of the rank."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from models.settings.transformers import sized, sized_tokens
from models.transformers.dit import DiT
from models.transformers.layers.blocks import Block
from models.transformers.token_transformer import TokenTransformer
from tests.models.transformers.small_dit import stirred
from tests.train.runs import train
from train.devices.parallel import Ranks, exit_process, full_states, init_ranks, parallelize
from train.loop.network import prepare_blocks

GRID = (2, 2, 3)
WIDE = {"width": 384, "depth": 2, "heads": 6, "text_dim": 6}  # so wide that DDP would send a block in several pieces
SMALL = {"width": 48, "depth": 2, "heads": 4, "text_dim": 6}


def generated(ranks: Ranks) -> dict[str, object]:
    """Tokens from sharded weights, those from whole ones, and how many of the weights this rank holds afterwards."""
    torch.manual_seed(0)
    networks = [stirred(TokenTransformer(sized_tokens("debug", 16, **SMALL)), 0.3) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    whole, sharded = networks
    size = sum(each.numel() for each in whole.parameters())
    parallelize(sharded, ranks, "fsdp", torch.float32)
    text = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(2))
    found = []
    for network in (sharded, whole):
        generator = torch.Generator().manual_seed(1)
        given = {"text": text, "negative": {"text": text[:, :1]}, "guidance": 2.0, "generator": generator}
        found.append(network.generate(GRID, 2, **given).flatten().tolist())
    sharded.reshard()  # the outermost weights stay gathered after a forward pass
    held = sum(each.to_local().numel() for each in sharded.parameters())
    return {"sharded": found[0], "whole": found[1], "held": held / size}


def graphs(ranks: Ranks, how: str, checkpointed: bool) -> dict[str, int]:
    """How many graphs the blocks of a compiled network give in a forward and backward pass; RuntimeError for a break.
    They are not turned into machine code, which takes minutes here.
    """
    torch.compiler.reset()
    found = []

    def backend(graph, inputs):  # type: ignore[no-untyped-def]
        found.append(graph)
        return graph.forward

    Block.compile = functools.partialmethod(torch.nn.Module.compile, backend=backend, fullgraph=True)  # type: ignore
    network = DiT(sized("debug", channels=4, **WIDE))
    prepare_blocks(network, compiled=True, checkpointed=checkpointed)
    module = parallelize(network, ranks, how, torch.float32)
    module(torch.randn(2, 4, 3, 4, 4), torch.rand(2), text=torch.randn(2, 5, 6)).square().mean().backward()
    return {"graphs": len(found), "blocks": len(network.blocks)}


class Copied(TorchFunctionMode):
    """Counts the bytes that are copied inside it."""

    bytes = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if func in (Tensor.to, Tensor.cpu, Tensor.clone, Tensor.contiguous):
            self.bytes += result.nbytes * (result.data_ptr() != args[0].data_ptr())
        return result


def copied(ranks: Ranks, folder: Path) -> dict[str, int]:
    """Bytes copied for a checkpoint of sharded weights besides those gathered from the ranks, and of the checkpoint."""
    training = train(folder, ranks, steps=1, parallel="fsdp")
    with Copied() as mode:
        training.save()
    training.checkpoints.wait()
    groups = (dict(training.network.named_parameters()), training.ema.average)
    states = [each for group in groups for each in full_states(group, ranks).values()]
    return {"copied": mode.bytes, "whole": sum(each.nbytes for each in states)}


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with init_ranks("cpu") as ranks:
        found = {"generated": generated(ranks), "copied": copied(ranks, folder / "run")}
        for how in ("ddp", "fsdp"):
            for checkpointed in (False, True):
                found[f"{how} {checkpointed}"] = graphs(ranks, how, checkpointed)
        (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    exit_process(0)
