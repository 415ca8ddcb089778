"""Attention to text without a mask is attention with one, in the shapes that kernels want; none is over no samples."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from models.transformers.layers.blocks import CrossAttention, attention_by_channel
from models.transformers.layers.conditions import ALIGNED, aligned
from tests.models.transformers.small_dit import inputs, network


class Attentions(TorchFunctionMode):
    """Notes (queries, keys, values, mask) of every call of attention inside it."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            self.calls.append((*args[:3], (kwargs or {}).get("attn_mask")))
        return func(*args, **(kwargs or {}))


def maskless(dit):
    """The same network, which attends to text without a mask."""
    other = copy.deepcopy(dit)
    for module in other.modules():
        if isinstance(module, CrossAttention):
            module.maskless = True
    return other


def mask_of(batch, length, generator):
    """(B, L) bool: at least the first token counts, as the network sees to; the others in any pattern."""
    mask = torch.rand(batch, length, generator=generator) < 0.6
    mask[:, 0] = True
    return mask


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([6, 12, 64, 72, 80, 128]), st.integers(1, 70), st.integers(1, 9), st.integers(0, 2**31))
def test_one_more_channel_masks_as_a_mask_does(head, length, queries, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(2, 3, count, head, generator=generator, requires_grad=True) for count in (queries, length, length)
    )
    mask = mask_of(2, length, generator)
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    with Attentions() as seen:
        found = attention_by_channel(q, k, v, mask)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    gradients = [torch.autograd.grad(each.square().sum(), (q, k, v)) for each in (wanted, found)]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=5e-5)
    ((queries, keys, values, no_mask),) = seen.calls
    assert no_mask is None and {each.shape[-1] % 8 for each in (queries, keys, values)} == {0}


def test_what_is_masked_counts_for_nothing_in_half_precision_either():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 20, 72, generator=generator).bfloat16() for _ in range(3))
    mask = mask_of(2, 20, generator)
    other = torch.where(mask[:, None, :, None], v, 1000.0).bfloat16()
    assert torch.equal(attention_by_channel(q, k, v, mask), attention_by_channel(q, k, other, mask))


@pytest.mark.parametrize("attention", ["full", "factorised"])
def test_a_whole_network_gives_the_same_without_masks(attention):
    dit, given = network(attention), inputs()
    with Attentions() as seen:
        found = maskless(dit)(**given)
    torch.testing.assert_close(found, dit(**given), rtol=0, atol=1e-5)
    assert all(mask is None for *_, mask in seen.calls)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 140), st.integers(0, 2**31))
def test_aligned_texts_change_nothing(length, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens, mask = torch.randn(2, length, 48, generator=generator), mask_of(2, length, generator)
    longer, longer_mask = aligned(tokens, mask)
    assert longer.shape[1] % ALIGNED == 0 and 0 <= longer.shape[1] - length < ALIGNED
    (cross,) = (each for each in network().blocks[0].modules() if isinstance(each, CrossAttention))
    x = torch.randn(2, 1, 7, 48, generator=generator)
    torch.testing.assert_close(cross(x, longer, longer_mask), cross(x, tokens, mask), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 4, 6)])
def test_attention_is_never_over_no_samples(shape):
    """Weights of the attention along time get a gradient of 0 from images, as DistributedDataParallel wants."""
    dit = copy.deepcopy(network("factorised")).requires_grad_(True)
    with Attentions() as seen:
        dit(**inputs(shape=shape)).square().sum().backward()
    assert seen.calls and all(q.numel() for q, *_ in seen.calls)
    times = [each for name, each in dit.named_parameters() if "time_attention" in name or "time_modulation" in name]
    assert times and all(each.grad is not None for each in times)
    assert (shape[0] == 1) == all(bool((each.grad == 0).all()) for each in times)


def test_given_latents_are_said_by_a_mask_as_by_times():
    dit, given = network(), inputs(batch=3)
    t, known = given.pop("t"), torch.zeros(3, 3, 4, 6, dtype=torch.bool)
    known[0, 0], known[1, :, :2] = True, True
    times = torch.where(known, 0, t[:, None, None, None])
    assert torch.equal(dit(t=t, known=known, **given), dit(t=times, **given))
    with pytest.raises(ValueError, match="known of shape"):
        dit(t=t, known=known[:, :1], **given)
