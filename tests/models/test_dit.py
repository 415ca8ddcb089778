"""The diffusion transformer: what it does with times, text, conditions and positions, and where it starts from."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.dit import DiT
from models.dit_settings import SIZES, DiTSettings, sized
from models.rotary import rotary, shares, turned
from train.guidance import Guidance, guided
from train.masks import latents_mask, token_times
from train.objectives import Objective
from train.samplers import Sampler, sample

SMALL = dict(width=48, depth=2, heads=4, channels=3, text_dim=10, conditions=("motion", "fps"))
ATTENTIONS = ("full", "factorised")
fast = settings(max_examples=10, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stirred(network: nn.Module) -> nn.Module:
    """With nothing left at 0: as if trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


@functools.cache
def network(attention: str = "full", **changes) -> DiT:
    return stirred(DiT(DiTSettings(**{**SMALL, "attention": attention, **changes}))).eval().requires_grad_(False)


def inputs(batch: int = 2, shape: tuple[int, int, int] = (3, 4, 6)) -> dict[str, Tensor]:
    """All that a network is called with."""
    return {
        "x": torch.randn(batch, 3, *shape),
        "t": torch.rand(batch),
        "text": torch.randn(batch, 5, 10),
        "text_mask": torch.arange(5).expand(batch, -1) < torch.randint(1, 5, (batch, 1)),
        "conditions": torch.randn(batch, 2),
    }


def near(one: Tensor, two: Tensor, atol: float = 1e-5) -> bool:
    return torch.allclose(one, two, rtol=1e-4, atol=atol)


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


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("text_tokens", [None, 7])
def test_flops_are_those_that_torch_counts(attention, text_tokens):
    changes = {} if text_tokens else {"text_dim": 0, "conditions": ()}
    for shape in ((2, 3, 4, 4, 6), (3, 3, 1, 4, 4)):
        with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            dit = DiT(DiTSettings(**{**SMALL, "attention": attention, "mixer_depth": 1, **changes}))
            text = torch.empty(shape[0], text_tokens, 10) if text_tokens else None
            dit(torch.empty(shape), torch.empty(shape[0]), text=text)
        assert dit.flops(shape, text_tokens or 0) == counter.get_total_flops()


def test_flops_without_the_tokens_dropped_are_those_that_torch_counts():
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        dit = DiT(DiTSettings(**SMALL, mixer_depth=1, mask_ratio=0.75))
        kept = torch.empty(2, 6, dtype=torch.int64)
        dit(torch.empty(2, 3, 4, 4, 6), torch.empty(2), text=torch.empty(2, 7, 10), kept=kept)
    assert dit.flops((2, 3, 4, 4, 6), 7, kept=6) == counter.get_total_flops()


# Positions


@fast
@given(
    head=st.sampled_from([6, 16, 32, 64, 72]),
    moved=st.tuples(*[st.integers(0, 5)] * 3),
    one=st.tuples(*[st.integers(0, 4)] * 3),
    two=st.tuples(*[st.integers(0, 4)] * 3),
)
def test_attention_sees_how_far_apart_two_places_are_and_nothing_else(head, moved, one, two):
    angles = rotary((10, 10, 10), head)
    assert sum(shares(head)) == head // 2
    q, k = torch.randn(2, 1, head)

    def seen(a, b):
        a, b = (angles[(slice(None), *place)] for place in (a, b))
        return (turned(q, a) * turned(k, b)).sum()

    here = seen(one, two)
    there = seen(*(tuple(x + y for x, y in zip(place, moved, strict=True)) for place in (one, two)))
    assert near(here, there, 1e-4)
    if one != two:
        assert not near(here, seen(one, one), 1e-6)


def test_places_do_not_depend_on_the_size_of_the_grid():
    assert torch.equal(rotary((2, 3, 4), 24), rotary((5, 7, 9), 24)[:, :2, :3, :4])


# Attention


def test_factorised_attention_is_full_attention_for_an_image():
    full, factorised = network(), network("factorised")
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


def test_samplers_and_guidance_call_it_as_it_is():
    dit, given = network(), inputs(batch=1)
    condition = {name: given[name] for name in ("text", "text_mask", "conditions")}
    empty = {"text": torch.randn(1, 2, 10), "text_mask": None}
    objective, known = Objective(), latents_mask((3, 4, 6), first=1)
    predict = guided(dit, objective, Guidance(3.0), condition, empty)
    clean = torch.randn_like(given["x"])
    made = sample(objective, predict, given["x"], steps=3, sampler=Sampler("heun"), known=known, clean=clean)
    assert torch.equal(made[:, :, 0], clean[:, :, 0])
    assert made.isfinite().all()
    assert torch.isfinite(sample(objective, predict, given["x"], steps=2)).all()


# Masking, and what training does with a network


def test_dropped_tokens_are_told_and_the_rest_is_what_it_would_be_among_themselves():
    dit, given = network(mask_ratio=0.75, depth=1), inputs()
    kept = dit.draw_kept(given["x"].shape, torch.Generator().manual_seed(0))
    assert kept.shape == (2, round(18 * 0.25))
    assert (kept.diff(dim=1) > 0).all()
    output, lost = dit(**given, kept=kept), dit.dropped(kept, given["x"].shape)
    assert lost.shape == (2, 3, 4, 6)
    assert lost.view(2, 3, 2, 2, 3, 2).float().mean((1, 2, 3, 4, 5)).tolist() == pytest.approx([14 / 18] * 2)
    assert (output.movedim(1, -1)[lost] == 0).all()
    assert (output.movedim(1, -1)[~lost] != 0).all()
    other = torch.where(lost[:, None], torch.randn_like(given["x"]), given["x"])
    assert near(dit(**{**given, "x": other}, kept=kept), output)  # nothing of the dropped is seen without a mixer
    everything = torch.arange(18).expand(2, -1)
    assert near(dit(**given, kept=everything), dit(**given))


@pytest.mark.parametrize("times", ["sample", "frames", "mask", "any"])
def test_times_follow_the_tokens_that_are_kept(times):
    dit, given = network(mixer_depth=1), inputs()
    everything = torch.arange(18).expand(2, -1)
    t = {
        "sample": given["t"],
        "frames": torch.rand(2, 3, 1, 1),
        "mask": token_times(given["t"], torch.rand(2, 3, 4, 6) < 0.3),
        "any": torch.rand(2, 3, 4, 6),
    }[times]
    assert near(dit(**{**given, "t": t}, kept=everything), dit(**{**given, "t": t}))


def test_a_mixer_lets_what_is_dropped_be_seen():
    dit, given = network(mixer_depth=1, mask_ratio=0.5), inputs()
    kept = dit.draw_kept(given["x"].shape)
    lost = dit.dropped(kept, given["x"].shape)
    other = torch.where(lost[:, None], torch.randn_like(given["x"]), given["x"])
    assert not near(dit(**{**given, "x": other}, kept=kept), dit(**given, kept=kept), 1e-3)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("how", ["cast", "autocast"])
def test_bfloat16_is_finite_and_near(attention, how):
    given = inputs()
    wanted = network(attention)(**given)
    dit = stirred(DiT(DiTSettings(**SMALL, attention=attention))).eval()
    dit.load_state_dict(network(attention).state_dict())
    for t in (given["t"], torch.rand(2, 3, 1, 1), token_times(given["t"], torch.rand(2, 3, 4, 6) < 0.5)):
        if how == "cast":
            output = dit.to(torch.bfloat16)(**{**given, "t": t})
        else:
            with torch.autocast("cpu", torch.bfloat16):
                output = dit(**{**given, "t": t})
        assert output.isfinite().all()
        output.float().square().mean().backward()
        assert all(each.grad is None or each.grad.isfinite().all() for each in dit.parameters())
        if t is given["t"]:
            assert (output - wanted).norm() < 0.05 * wanted.norm()


def test_a_network_without_anything_but_times_works_in_bfloat16_too():
    dit = stirred(DiT(DiTSettings(width=24, depth=1, heads=2))).to(torch.bfloat16)
    assert dit(torch.randn(2, 8, 1, 2, 2), torch.rand(2)).isfinite().all()


def test_blocks_can_be_checkpointed_one_by_one():
    given, grads = inputs(), []
    for checkpointed in (False, True):
        dit = stirred(DiT(DiTSettings(**SMALL)).requires_grad_(True))
        dit.load_state_dict(network().state_dict())
        if checkpointed:
            for block in dit.blocks:
                plain = block.forward
                block.forward = functools.partial(torch.utils.checkpoint.checkpoint, plain, use_reentrant=False)
        dit(**given).square().mean().backward()
        grads.append([each.grad for each in dit.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_blocks_that_are_compiled_one_by_one_are_compiled_once(attention):
    torch.compiler.reset()
    made = []

    def backend(graph, _):
        made.append(graph)
        return graph.forward

    dit = stirred(DiT(DiTSettings(**{**SMALL, "attention": attention, "mixer_depth": 1})))
    given = inputs()
    wanted = dit(**given)
    for block in (*dit.mixer, *dit.blocks):
        block.compile(backend=backend, fullgraph=True)
    assert near(dit(**given), wanted)
    for shape in ((5, 6, 6), (4, 8, 4), (7, 2, 10)):
        dit(**inputs(shape=shape)).sum().backward()
    assert len(made) == 2  # for the first size, and for any
    if attention == "full":
        dit(**inputs(shape=(1, 6, 8))).sum().backward()
        assert len(made) == 2  # an image too
