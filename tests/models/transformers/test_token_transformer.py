"""Next-token prediction: no token depends on later ones, and the cache of keys and values changes no result."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.settings.transformers import TokenSettings
from models.transformers.token_transformer import TokenTransformer
from tests.models.transformers.small_dit import stirred
from tests.torch_state import one_thread, seeded

__all__ = ["one_thread", "seeded"]

CODES = 11
SMALL = dict(width=48, depth=2, heads=4, codes=CODES, text_dim=10, conditions=("motion", "fps"))
fast = settings(max_examples=12, deadline=None, derandomize=True)


@functools.cache
def network(**changes) -> TokenTransformer:
    return stirred(TokenTransformer(TokenSettings(**{**SMALL, **changes})), 0.15).eval().requires_grad_(False)


def condition(batch: int = 2) -> dict[str, Tensor]:
    return {
        "text": torch.randn(batch, 5, 10),
        "text_mask": torch.arange(5).expand(batch, -1) < torch.randint(1, 5, (batch, 1)),
        "conditions": torch.randn(batch, 2),
    }


def tokens(shape: tuple[int, int, int] = (2, 2, 3), batch: int = 2) -> Tensor:
    return torch.randint(CODES, (batch, *shape))


@fast
@given(shape=st.tuples(*[st.integers(1, 3)] * 3), data=st.data())
def test_no_token_is_seen_before_its_turn_not_by_one_bit(shape, data):
    net, one, given = network(), tokens(shape), condition()
    place = data.draw(st.integers(0, math.prod(shape) - 1))
    two = one.clone()
    later = two.flatten(1)[:, place:]
    later.copy_((later + torch.randint(1, CODES, later.shape)) % CODES)
    before, after = (net(each, **given).flatten(1, 3) for each in (one, two))
    assert torch.equal(before[:, : place + 1], after[:, : place + 1])
    if place < math.prod(shape) - 1:
        assert (before[:, place + 1 :] != after[:, place + 1 :]).any(2).all()  # and from then on it counts


def test_a_new_network_finds_all_codes_equally_likely():
    net, given = TokenTransformer(TokenSettings(**SMALL)), tokens()
    logits = net(given, **condition())
    assert torch.equal(logits, torch.zeros(2, 2, 2, 3, CODES))
    assert net.loss(logits, given).tolist() == pytest.approx([math.log(CODES)] * 2)


def test_gradients_reach_every_parameter_within_the_steps_that_starting_from_zero_takes():
    net, given, told = TokenTransformer(TokenSettings(**SMALL)), tokens(), condition()
    told["conditions"][0, 0] = told["conditions"][1, 1] = math.nan
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        net.loss(net(given, **told), given).mean().backward()
        optimizer.step()
    assert [name for name, each in net.named_parameters() if not each.grad.abs().max() > 0] == []


@pytest.mark.slow
def test_one_batch_is_overfitted_and_comes_back():
    net, given, told = TokenTransformer(TokenSettings(**SMALL)), tokens(), condition()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(120):
        loss = net.loss(net(given, **told), given).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert torch.equal(net.generate((2, 2, 3), 2, temperature=0, **told), given)
    assert torch.equal(net.generate((2, 2, 3), 2, temperature=0, given=given[:, :1], **told), given)


@fast
@given(
    shape=st.tuples(*[st.integers(1, 3)] * 3),
    guidance=st.sampled_from([1.0, 2.5]),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([None, 1, 3, 100]),
    start=st.integers(0, 2),
)
def test_kept_keys_and_values_change_nothing(shape, guidance, temperature, top_k, start):
    net, told = network(), condition()
    options = dict(guidance=guidance, temperature=temperature, top_k=top_k, negative={"text": None, "text_mask": None})
    given = tokens((min(start, shape[0] - 1), *shape[1:]))
    options["given"] = given if given.numel() else None
    found = [
        net.generate(shape, 2, cached=cached, generator=torch.Generator().manual_seed(5), **options, **told)
        for cached in (True, False)
    ]
    assert torch.equal(*found)
    assert found[0].shape == (2, *shape)
    assert torch.equal(found[0][:, : given.shape[1]], given)


def test_kept_keys_and_values_give_the_same_logits():
    net, told, given = network(), condition(), tokens()
    wanted = net(given, **told).flatten(1, 3)
    context, where = net._condition(*told.values(), 2, given.device), net._where((2, 2, 3), given.device)
    cache = torch.empty(2, 2, 2, 4, 12, 12)
    before = torch.nn.functional.pad(given.flatten(1)[:, :-1], (1, 0), value=CODES)
    places = [(0, 5), *((at, at + 1) for at in range(5, 12))]  # the first five at once, as what is given goes in
    parts = [net._run(before[:, a:b], where, *context, cache, a) for a, b in places]
    assert torch.allclose(torch.cat(parts, dim=1), wanted, atol=1e-5)


def test_what_is_drawn_follows_the_logits():
    net, told = (
        network(),
        {name: value[:1].repeat(4000, *[1] * (value.ndim - 1)) for name, value in condition().items()},
    )
    empty = {"text": None, "text_mask": None, "conditions": None}
    one, other = (net(torch.zeros(4000, 1, 1, 1, dtype=torch.int64), **each)[0, 0, 0, 0] for each in (told, empty))
    logits = other + 1.5 * (one - other)

    def drawn(**options) -> Tensor:
        found = net.generate((1, 1, 1), 4000, guidance=1.5, negative=empty, **options, **told)
        return found.flatten().bincount(minlength=CODES) / 4000

    assert (drawn() - logits.softmax(0)).abs().max() < 0.04
    assert (drawn(temperature=2.0) - (logits / 2).softmax(0)).abs().max() < 0.04
    best = logits.topk(3)
    wanted = torch.zeros(CODES).scatter(0, best.indices, best.values.softmax(0))
    assert (drawn(top_k=3) - wanted).abs().max() < 0.04
    assert drawn(temperature=0.0)[logits.argmax()] == 1


def test_text_and_conditions_count_and_padding_does_not():
    net, given, told = network(), tokens(), condition()
    wanted = net(given, **told)
    padded = {
        **told,
        "text": torch.cat([told["text"], torch.full((2, 3, 10), math.nan)], dim=1),
        "text_mask": torch.cat([told["text_mask"], torch.zeros(2, 3, dtype=torch.bool)], dim=1),
    }
    assert torch.allclose(net(given, **padded), wanted, atol=1e-4)
    assert not torch.allclose(net(given, **{**told, "text": told["text"] + 1}), wanted, atol=1e-2)
    assert not torch.allclose(net(given, **{**told, "conditions": None}), wanted, atol=1e-2)


def test_what_makes_no_sense_is_refused():
    net = network()
    for options, words in (
        ({"temperature": -1}, "temperature -1"),
        ({"top_k": 0}, "top_k 0"),
        ({"guidance": 2.0}, "guidance 2.0 needs"),
        ({"guidance": 2.0, "negative": {"txt": None}}, "txt"),
        ({"given": tokens((2, 2, 2), 1)}, "given tokens"),
        ({"given": tokens((3, 2, 3), 1)}, "given tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            net.generate((2, 2, 3), 1, **options)
    with pytest.raises(ValueError, match=r"\(B, T, H, W\)"):
        net(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="tokens from 0 to 11, of 11 codes"):
        net(torch.tensor([0, CODES]).view(1, 1, 1, 2))


def test_bfloat16_is_finite_and_flops_are_those_that_torch_counts():
    net = stirred(TokenTransformer(TokenSettings(**SMALL))).to(torch.bfloat16)
    assert net(tokens(), **condition()).isfinite().all()
    assert net.generate((1, 2, 2), 2, guidance=2.0, negative={"text": None}, **condition()).shape == (2, 1, 2, 2)
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        on_shapes = TokenTransformer(TokenSettings(**SMALL))
        before = torch.empty(2, 12, dtype=torch.int64)
        context = on_shapes._condition(torch.empty(2, 7, 10), None, None, 2, before.device)
        on_shapes._run(before, on_shapes._where((2, 2, 3), before.device), *context)
    assert on_shapes.flops((2, 2, 2, 3), 7) == counter.get_total_flops()
