"""What runs on a GPU mixes no devices and no dtypes: every network and objective on tensors that only pretend to be
there (torch's fake tensors), and a whole step with its backward pass on the device "meta".
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.train.made_up import data
from tests.train.runs import MODEL, config
from train.data.batches import micro_batches, to_device
from train.data.conditions import Conditions
from train.data.latents import KeyedGenerators
from train.loop.network import build, prepare_blocks
from train.loop.tasks import NextToken, task_for
from train.objectives.objective import PUBLISHED

GPU = torch.device("cuda", 0)
NETWORKS = {
    "full": {},
    "factorised": {"attention": "factorised"},
    "dropped tokens": {"mixer_depth": 1, "mask_ratio": 0.25},
    "no norms, long patches": {"qk_norm": False, "patch": [1, 4, 4]},
    "no text": {"text_dim": 0},
    "no conditions": {"conditions": []},
}
OBJECTIVES = [*PUBLISHED, {"prediction": "x0"}, {"path": "cosine", "prediction": "v", "weighting": "min_snr"}]
CASES = [
    *({"model": {**MODEL, **each}} for each in NETWORKS.values()),
    *({"objective": each} for each in OBJECTIVES),
    {"text_attention": "maskless"},
    {"activation_checkpointing": True},
    {"kind": "tokens"},
]
MASKS = {"predict": 0.3, "spatial": 0.3, "interpolate": 0.2, "single": 0.2}


def draws(chosen, network, there, batch, places):
    """What a step draws, made on the CPU as always, and moved."""
    task = task_for(chosen, network, there, torch.device("cpu"))
    (part,) = micro_batches(batch, {}, 1)
    return task.draw(part, 3, places)


def step(chosen, bucket, device, mode=None):
    """The losses of a step on the device, from a network and a batch that are made there."""
    there = data(4, kind=chosen.kind)
    batch = there.loader.batch(bucket, [0, 1, 2, 4])
    drawn = draws(chosen, build(chosen, there), there, batch, range(4))

    def moved(value):
        if not isinstance(value, torch.Tensor):
            return value
        return (value if mode is None else mode.from_tensor(value)).to(device)

    with mode or nullcontext():
        with device:
            network = build(chosen, there)
        prepare_blocks(network, False, chosen.activation_checkpointing, chosen.text_attention == "maskless")
        if mode is not None:
            there = dataclasses.replace(there, empty_text=mode.from_tensor(there.empty_text))
            batch = dataclasses.replace(
                batch,
                latents={name: mode.from_tensor(each) for name, each in batch.latents.items()},
                **{name: mode.from_tensor(getattr(batch, name)) for name in ("text", "text_mask", "conditions")},
            )
        text = bool(network.settings.text_dim)
        conditions = Conditions(there, network.settings.conditions, 0, 0.5, 0.5, text)
        (part,) = micro_batches(to_device(batch, device), conditions(to_device(batch, device)), 1)
        task = task_for(chosen, network, there, device)
        if not isinstance(task, NextToken):
            task.generators = KeyedGenerators(0)  # this machine has no generators for a GPU
            drawn = dataclasses.replace(drawn, **{name: moved(getattr(drawn, name)) for name in ("t", "known", "kept")})
        return network, part, task.losses(network, part, drawn)


@contextmanager
def as_on_a_gpu(half: bool):
    """Autocast for a GPU, which torch.autocast refuses where there is none."""
    torch.set_autocast_enabled("cuda", half)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


GIVEN = [*((each, "9x32x32", True) for each in CASES), *((each, "1x32x32", False) for each in CASES[: len(NETWORKS)])]


@pytest.mark.parametrize(("changes", "bucket", "half"), GIVEN, ids=str)
def test_a_gpu_step_mixes_no_devices_and_no_dtypes(changes, bucket, half):
    given = {} if changes.get("kind") == "tokens" else {"conditions": {"text_dropout": 0.5, "masks": MASKS}}
    with as_on_a_gpu(half):
        _, part, losses = step(config(**given, **changes), bucket, GPU, FakeTensorMode())
    assert (losses.device, losses.dtype, losses.shape) == (GPU, torch.float32, (4,))
    assert all(each.device == GPU for each in part.condition.values())


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_so_does_its_backward_pass(changes):
    network, _, losses = step(config(**changes), "9x32x32", torch.device("meta"))
    losses.mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.device.type, parameter.grad.dtype) == ("meta", torch.float32)


def test_texts_are_aligned_on_a_gpu_alone():
    """1 + L is a multiple of 64 where the kernels of attention want it, and as long as the texts are elsewhere."""
    seen = {}
    for mode, device in ((FakeTensorMode(), GPU), (None, torch.device("cpu"))):
        chosen = config()
        network, part, _ = step(chosen, "9x32x32", device, mode)
        with mode or nullcontext():
            _, text, mask = network.context(
                part.condition["text"], part.condition["text_mask"], part.condition["conditions"], 4, device
            )
        seen[device.type] = tuple(text.shape), tuple(mask.shape)
    assert seen == {"cuda": ((4, 64, 48), (4, 64)), "cpu": ((4, 4, 48), (4, 4))}
