"""A DiT as samplers and the training loop use it: guidance, masking, bfloat16, checkpointing, compiling, FLOPs."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.utils.checkpoint
from torch.utils.flop_counter import FlopCounterMode

from models.settings.transformers import DiTSettings
from models.transformers.dit import DiT
from tests.models.transformers.small_dit import ATTENTIONS, SMALL, inputs, near, network, stirred
from tests.torch_state import one_thread, seeded
from train.objectives.masks import latents_mask, token_times
from train.objectives.objective import Objective
from train.sampling.diffusion_samplers import SamplerSettings, sample_latents
from train.sampling.guidance import Guidance, guided

__all__ = ["one_thread", "seeded"]


def test_samplers_and_guidance_call_it_as_it_is():
    dit, given = network(), inputs(batch=1)
    condition = {name: given[name] for name in ("text", "text_mask", "conditions")}
    empty = {"text": torch.randn(1, 2, 10), "text_mask": None}
    objective, known = Objective(), latents_mask((3, 4, 6), first=1)
    predict = guided(dit, objective, Guidance(3.0), condition, empty)
    clean = torch.randn_like(given["x"])
    made = sample_latents(
        objective, predict, given["x"], steps=3, sampler=SamplerSettings("heun"), known=known, clean=clean
    )
    assert torch.equal(made[:, :, 0], clean[:, :, 0])
    assert made.isfinite().all()
    assert torch.isfinite(sample_latents(objective, predict, given["x"], steps=2)).all()


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


def test_dropped_tokens_are_told_and_the_rest_is_what_it_would_be_among_themselves():
    dit, given = network(mask_ratio=0.75, depth=1), inputs()
    kept = dit.draw_kept(given["x"].shape, torch.Generator().manual_seed(0))
    assert kept.shape == (2, round(18 * 0.25))
    assert (kept.diff(dim=1) > 0).all()
    output, lost = dit(**given, kept=kept), dit.dropped_mask(kept, given["x"].shape)
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
    lost = dit.dropped_mask(kept, given["x"].shape)
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


def test_images_leave_no_weight_without_a_gradient_which_distributed_training_would_wait_for():
    dit = stirred(DiT(DiTSettings(**SMALL, attention="factorised")))
    dit(**inputs(shape=(1, 4, 6))).square().mean().backward()
    assert [name for name, each in dit.named_parameters() if each.grad is None] == []
    assert all((each.grad == 0).all() for each in dit.blocks[0].time_attention.parameters())


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


@pytest.mark.slow
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
