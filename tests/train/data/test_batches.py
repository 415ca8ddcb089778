"""Micro-batches together are their batch."""

from __future__ import annotations

import pytest
import torch

from tests.train.made_up import Clips, data
from train.data.batches import micro_batches, to_device
from train.data.conditions import Conditions


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_micro_batches_are_the_batch_in_order(count):
    whole = Clips(8).batch("9x32x32", list(range(8)))
    told = Conditions(data(4), ("motion", "fps"), 0, 0.0, 0.0, True)(whole)
    pieces = micro_batches(whole, told, count)
    assert [clip for part in pieces for clip in part.clip_ids] == whole.clip_ids
    assert torch.equal(torch.cat([part.latents["mean"] for part in pieces]), whole.latents["mean"])
    assert torch.equal(torch.cat([part.condition["text"] for part in pieces]), told["text"])


def test_a_batch_on_another_device_is_a_copy():
    batch = Clips(4).batch("9x32x32", [0, 1, 2, 3])
    there = to_device(batch, torch.device("meta"))
    tensors = (*there.latents.values(), there.text, there.text_mask, there.conditions)
    assert all(each.device.type == "meta" for each in tensors)
    assert there.clip_ids == batch.clip_ids and batch.text.device.type == "cpu"
