"""The average of the weights has its closed form, and applying it leaves the weights as they were bit by bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from train.optimization.ema import EMA


def test_the_average_is_the_weighted_sum_of_what_the_weights_were():
    module, decay = nn.Linear(2, 2), 0.3
    ema = EMA(module, decay)
    expected = module.weight.detach().double()
    for update in range(6):
        with torch.no_grad():
            module.weight.normal_()
        ema.update()
        rate = min(decay, (1 + update) / (10 + update))
        expected = rate * expected + (1 - rate) * module.weight.detach().double()
    torch.testing.assert_close(ema.state_dict()["weight"].double(), expected, rtol=1e-6, atol=1e-6)


def test_half_precision_weights_are_averaged_in_float32():
    module = nn.Linear(1, 1, bias=False).bfloat16()
    ema = EMA(module, 0.999)
    with torch.no_grad():
        module.weight.fill_(1.0)
    for _ in range(3000):
        ema.update()
    assert abs(float(ema.state_dict()["weight"]) - 1) < 1e-3  # in bfloat16 it would stay behind: 1/1000 rounds away


def test_applied_gives_the_average_inside_and_the_very_weights_after():
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    ema = EMA(module, 0.9)
    with torch.no_grad():
        module[0].weight.normal_()
    ema.update()
    before, other = copy.deepcopy(module.state_dict()), copy.deepcopy(module)
    with ema.applied(module):
        assert torch.equal(module[0].weight, ema.state_dict()["0.weight"])
        assert not torch.equal(module[0].weight, before["0.weight"])
    with pytest.raises(RuntimeError), ema.applied():
        raise RuntimeError("inside")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with ema.applied(other):
        assert torch.equal(other[0].weight, ema.state_dict()["0.weight"])


def test_an_average_goes_on_where_it_was():
    torch.manual_seed(0)
    module = nn.Linear(2, 2)
    ema = EMA(module, 0.99)
    for _ in range(3):
        with torch.no_grad():
            module.weight.add_(1)
        ema.update()
    other = EMA(copy.deepcopy(module), 0.99)
    other.load_state_dict(copy.deepcopy(ema.state_dict()))
    for each in (ema, other):
        with torch.no_grad():
            each.module.weight.add_(1)
        each.update()
    assert torch.equal(ema.state_dict()["weight"], other.state_dict()["weight"])
    with pytest.raises(ValueError, match="another network"):
        other.load_state_dict({"weight": torch.zeros(2, 2)})
