"""The diffusion transformer: times, text, conditions, positions, and its initial weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from models.settings.transformers import SIZES, DiTSettings, sized
from models.transformers.dit import DiT
from models.transformers.flops import dit_flops
from models.transformers.layers.rotary import axis_pairs, position_features, rotary_angles, rotate
from tests.models.transformers.small_dit import ATTENTIONS, SMALL, inputs, near, network, stirred
from tests.torch_state import one_thread, seeded
from train.objectives.masks import latents_mask, token_times

__all__ = ["one_thread", "seeded"]

fast = settings(max_examples=10, deadline=None, derandomize=True)


# Where it starts


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_new_network_gives_exactly_nothing_and_its_blocks_change_nothing(attention):
    dit = DiT(DiTSettings(**SMALL, attention=attention, mixer_depth=1))
    seen: list[bool] = []
    for block in (*dit.mixer, *dit.blocks):
        block.register_forward_hook(lambda _, given, output: seen.append(torch.equal(given[0], output)))
    output = dit(**inputs())
    assert torch.equal(output, torch.zeros_like(output))
    assert seen == [True] * 3


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_gradients_reach_every_parameter_within_the_steps_that_starting_from_zero_takes(attention):
    # The head's own weight learns first, then the gates, then all behind them.
    dit = DiT(DiTSettings(**SMALL, attention=attention, mixer_depth=1))
    optimizer = torch.optim.SGD(dit.parameters(), lr=0.5)
    given = inputs()
    given["conditions"][0, 0] = given["conditions"][1, 1] = math.nan
    for _ in range(3):
        optimizer.zero_grad()
        (dit(**given) - torch.randn_like(given["x"])).square().mean().backward()
        optimizer.step()
    dead = [name for name, each in dit.named_parameters() if each.grad is None or not each.grad.abs().max() > 0]
    assert dead == []


@pytest.mark.slow
def test_one_batch_is_overfitted():
    dit = DiT(DiTSettings(**SMALL))
    given, target = inputs(), torch.randn(2, 3, 3, 4, 6)
    optimizer = torch.optim.AdamW(dit.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss = (dit(**given) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.8
    assert losses[-1] < 0.05


# Shapes and sizes


@fast
@given(
    patch=st.tuples(*[st.integers(1, 2)] * 3),
    grid=st.tuples(*[st.integers(1, 3)] * 3),
    attention=st.sampled_from(ATTENTIONS),
)
def test_patches_go_out_where_they_came_in(patch, grid, attention):
    dit = DiT(DiTSettings(**{**SMALL, "patch": patch, "attention": attention}))
    x = torch.randn(2, 3, *(size * each for size, each in zip(grid, patch, strict=True)))
    assert dit.grid(x.shape) == grid
    assert dit(x, torch.rand(2)).shape == x.shape
    assert torch.equal(dit._unpatched(dit._patched(x).reshape(2, *grid, -1)), x)


# DiT (Peebles and Xie 2023), table 1, in millions, with 1,001 labels and twice the outputs (a learned variance).
PUBLISHED = {"S": 33, "B": 130, "L": 458, "XL": 675}


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_published_sizes_have_the_published_number_of_parameters(size):
    with torch.device("meta"):
        dit = DiT(sized(size, channels=4, qk_norm=False))
    count = sum(each.numel() for each in dit.parameters())
    width = SIZES[size]["width"]
    count += 1001 * width + (width + 1) * 16  # what they have besides: labels, and the variance
    assert abs(count / 1e6 - PUBLISHED[size]) <= 1.0
    blocks = sum(each.numel() for each in dit.blocks.parameters())
    assert blocks == SIZES[size]["depth"] * (18 * width**2 + 15 * width)


def test_xl_with_heads_of_128_has_the_parameters_of_xl():
    counts = []
    for size in ("XL", "XL128"):
        with torch.device("meta"):
            dit = DiT(sized(size, channels=4, text_dim=512, qk_norm=False))
        counts.append(sum(each.numel() for each in dit.parameters()))
    assert counts[0] == counts[1] and sized("XL128").width // sized("XL128").heads == 128
    assert dit_flops(sized("XL"), 1, (8, 32, 32)) == dit_flops(sized("XL128"), 1, (8, 32, 32))


def test_what_does_not_fit_is_refused_with_what_would():
    dit, given = network(), inputs()
    wrong = [
        ({"x": torch.randn(2, 3, 3, 5, 6)}, "don't fall into patches"),
        ({"x": torch.randn(2, 4, 3, 4, 6)}, r"\(B, 3, T, H, W\)"),
        ({"t": torch.rand(3)}, "times of shape"),
        ({"t": torch.rand(2, 3, 4, 5)}, "times of shape"),
        ({"text": torch.randn(2, 5, 9)}, r"\(2, L, 10\)"),
        ({"text_mask": torch.ones(2, 4, dtype=torch.bool)}, "text mask"),
        ({"conditions": torch.randn(2, 3)}, "motion, fps"),
    ]
    for change, words in wrong:
        with pytest.raises(ValueError, match=words):
            dit(**{**given, **change})
    plain = DiT(DiTSettings(width=24, depth=1, heads=2))
    with pytest.raises(ValueError, match="takes no text"):
        plain(torch.randn(1, 8, 1, 2, 2), torch.rand(1), text=torch.randn(1, 2, 3))
    with pytest.raises(ValueError, match="takes no conditions"):
        plain(torch.randn(1, 8, 1, 2, 2), torch.rand(1), conditions=torch.randn(1, 1))


# Positions


@fast
@given(
    head=st.sampled_from([6, 16, 32, 64, 72]),
    moved=st.tuples(*[st.integers(0, 5)] * 3),
    one=st.tuples(*[st.integers(0, 4)] * 3),
    two=st.tuples(*[st.integers(0, 4)] * 3),
)
def test_attention_sees_how_far_apart_two_places_are_and_nothing_else(head, moved, one, two):
    angles = rotary_angles((10, 10, 10), head)
    assert sum(axis_pairs(head)) == head // 2
    q, k = torch.randn(2, 1, head)

    def seen(a, b):
        a, b = (angles[(slice(None), *place)] for place in (a, b))
        return (rotate(q, a) * rotate(k, b)).sum()

    here = seen(one, two)
    there = seen(*(tuple(x + y for x, y in zip(place, moved, strict=True)) for place in (one, two)))
    assert near(here, there, 1e-4)
    if one != two:
        assert not near(here, seen(one, one), 1e-6)


def test_places_do_not_depend_on_the_size_of_the_grid():
    assert torch.equal(rotary_angles((2, 3, 4), 24), rotary_angles((5, 7, 9), 24)[:, :2, :3, :4])


def test_a_token_knows_where_in_the_picture_it_is_at_any_resolution():
    small, large = position_features((3, 4, 6)), position_features((5, 12, 18))
    assert near(small[:, 1, 2], large[:3, 4, 7])  # the middles of the same parts of a picture
    assert torch.equal(position_features((3, 4, 6)), position_features((7, 4, 6))[:3])  # a longer clip begins alike
    flat = small.flatten(0, 2)
    assert torch.cdist(flat, flat).fill_diagonal_(1.0).min() > 0.1  # no two places look alike


def test_one_pattern_that_only_its_places_tell_is_learned_fast():
    dit = DiT(DiTSettings(**{**SMALL, "text_dim": 0, "conditions": ()}))
    target = torch.randn(1, 3, 3, 4, 6)
    optimizer = torch.optim.AdamW(dit.parameters(), lr=3e-3)
    for _ in range(100):  # from pure noise, another each time
        loss = (dit(torch.randn(4, 3, 3, 4, 6), torch.ones(4)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * target.var().item()


# Attention


def test_factorised_attention_is_full_attention_for_an_image():
    full, factorised = network(), stirred(DiT(DiTSettings(**SMALL, attention="factorised"))).requires_grad_(False)
    factorised.load_state_dict(full.state_dict(), strict=False)
    image, clip = inputs(shape=(1, 4, 6)), inputs(shape=(2, 4, 6))
    assert near(full(**image), factorised(**image))
    assert not near(full(**clip), factorised(**clip), 1e-3)


def test_factorised_attention_reaches_all_tokens_in_one_block():
    dit = network("factorised", depth=1)
    given = inputs(batch=1)
    given["x"].requires_grad_()
    dit(**given)[0, :, 2, 3, 5].sum().backward()
    assert (given["x"].grad.abs().sum(1) > 0).all()


# Text


@fast
@given(padding=st.integers(1, 4), junk=st.sampled_from([0.0, 7.0, math.nan, math.inf]))
def test_padding_of_a_text_changes_nothing(padding, junk):
    dit, given = network(), inputs()
    padded = {
        **given,
        "text": torch.cat([given["text"], torch.full((2, padding, 10), junk)], dim=1),
        "text_mask": torch.cat([given["text_mask"], torch.zeros(2, padding, dtype=torch.bool)], dim=1),
    }
    assert near(dit(**given), dit(**padded))


def test_a_text_with_nothing_in_it_is_no_text_and_no_nan():
    dit, given = network(), inputs()
    given["text_mask"][0] = False
    output = dit(**given)
    assert output.isfinite().all()
    given_none = {**given, "text": None, "text_mask": None}
    assert near(output[0], dit(**given_none)[0])
    assert not near(output[1], dit(**given_none)[1], 1e-3)


def test_gradients_stay_finite_beside_an_empty_text_and_unknown_conditions():
    dit = stirred(DiT(DiTSettings(**SMALL)))
    given = inputs()
    given["text_mask"][0], given["text"][0], given["conditions"][0] = False, math.nan, math.nan
    dit(**given).square().sum().backward()
    assert all(each.grad.isfinite().all() for each in dit.parameters())


def test_one_text_may_serve_the_whole_batch():
    dit, given = network(), inputs(batch=3)
    one = {name: given[name][:1] for name in ("text", "text_mask", "conditions")}
    many = {name: value.repeat(3, *[1] * (value.ndim - 1)) for name, value in one.items()}
    assert torch.equal(dit(**{**given, **one}), dit(**{**given, **many}))


# Conditions


def test_an_unknown_condition_is_its_own_learned_embedding_and_not_a_number():
    dit = stirred(DiT(DiTSettings(**SMALL))).requires_grad_(False)
    given = inputs()
    known = dit(**given)
    unknown = dit(**{**given, "conditions": torch.full((2, 2), math.nan)})
    assert torch.equal(dit(**{**given, "conditions": None}), unknown)
    half = given["conditions"].clone()
    half[:, 1] = math.nan
    half_known = dit(**{**given, "conditions": half})
    zeros = dit(**{**given, "conditions": torch.zeros(2, 2)})
    for one, two in ((known, unknown), (half_known, known), (half_known, unknown), (zeros, unknown)):
        assert not near(one, two, 1e-4)
    dit.context.conditions.unknown[1] += 1  # only what is unknown hears of it
    assert torch.equal(dit(**given), known)
    assert not near(dit(**{**given, "conditions": half}), half_known, 1e-4)


def test_conditions_count_in_deviations_from_their_mean():
    dit = stirred(DiT(DiTSettings(**SMALL))).requires_grad_(False)
    given = inputs()
    before = dit(**given)
    scales = {"fps": (1000.0, 4.0), "motion": (-3.0, 0.0)}  # a deviation of 0, of a constant, counts as 1
    dit.set_condition_scales(scales)
    motion, fps = given["conditions"].T
    moved = torch.stack([motion - 3, fps * 4 + 1000], dim=1)
    assert near(dit(**{**given, "conditions": moved}), before, 1e-3)
    cast = dit.to(torch.bfloat16).context.conditions
    assert (cast.mean.tolist(), cast.std.tolist()) == ([-3.0, 1000.0], [1.0, 4.0])
    assert cast.mean.dtype == torch.float32
    for wrong in ({"size": (0.0, 1.0)}, {"fps": (math.nan, 1.0)}, {"fps": (0.0, -1.0)}):
        with pytest.raises(ValueError, match="condition"):
            dit.set_condition_scales(wrong)


# Times


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shape", [(3, 4, 6), (3, 1, 1), (1, 4, 6), (1, 1, 1)])
def test_one_time_for_every_token_is_one_time_for_the_sample(attention, shape):
    dit, given = network(attention), inputs()
    times = given["t"].view(2, 1, 1, 1).expand(2, *shape)
    assert near(dit(**given), dit(**{**given, "t": times}))


def test_times_of_frames_of_two_kinds_or_of_any_kind_go_to_their_tokens():
    dit, given = network(), inputs()
    frames = torch.rand(2, 3, 1, 1)
    any_kind = frames.expand(2, 3, 4, 6)  # three values a sample: one condition per token
    assert near(dit(**{**given, "t": frames}), dit(**{**given, "t": any_kind}))
    known = latents_mask((3, 4, 6), first=1)
    two = token_times(given["t"], known.expand(2, -1, -1, -1))  # two values: chosen from two conditions
    assert near(dit(**{**given, "t": two}), dit(**{**given, "t": two[:, :, :1, :1]}))
    assert not near(dit(**{**given, "t": two}), dit(**given), 1e-3)
    assert not near(dit(**{**given, "t": two}), dit(**{**given, "t": frames}), 1e-3)


def test_a_patch_that_is_given_in_part_has_the_time_of_the_rest():
    dit, given = network(), inputs()
    times = given["t"].view(2, 1, 1, 1).expand(2, 3, 4, 6).clone()
    times[:, :, ::2] = 0  # every patch of 2 x 2 has rows of both kinds
    assert near(dit(**{**given, "t": times}), dit(**given))
