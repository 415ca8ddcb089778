"""What a network is shown of a batch: normalized latents, conditions left out at their rates, noise by its place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.made_up import CONTRACT, DIM, Clips, data
from train.data.batches import Conditions, KeyedGenerators, normal, normalized, parts
from train.sampling.guidance import dropped_conditions

fast = settings(max_examples=25, deadline=None, derandomize=True)


def conditions(text_dropout=0.0, dropout=0.0, names=("motion", "fps"), text=True):
    return Conditions(data(4), names, 0, text_dropout, dropout, text)


def batch(bucket="9x32x32", count=8, epoch=0):
    return Clips(count).batch(bucket, list(range(count)), epoch)


def test_latents_are_whitened_channel_by_channel_by_the_contract():
    latents = batch().latents
    found = normalized(latents, CONTRACT, None)
    for channel in range(4):
        expected = (latents["mean"][:, channel].double() - CONTRACT["mean"][channel]) / CONTRACT["std"][channel]
        torch.testing.assert_close(found[:, channel].double(), expected, rtol=1e-6, atol=1e-6)


def test_a_latent_is_drawn_with_the_stored_variance():
    latents = {"mean": torch.zeros(1, 4, 8, 32, 32).half(), "logvar": torch.full((1, 4, 8, 32, 32), -2.0).half()}
    plain = {**CONTRACT, "mean": [0.0] * 4, "std": [1.0] * 4}
    found = normalized(latents, plain, [torch.Generator().manual_seed(0)])
    assert float(found.std()) == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.02)
    assert abs(float(found.mean())) < 0.01


@fast
@given(epoch=st.integers(0, 5), rate=st.sampled_from([0.0, 0.3, 1.0]))
def test_captions_left_out_are_the_encoded_empty_prompt_and_others_are_themselves(epoch, rate):
    given_batch = batch(epoch=epoch)
    found = conditions(text_dropout=rate)(given_batch)
    lost = dropped_conditions(0, epoch, given_batch.clip_ids, rate)
    for row in range(8):
        text = found["text"][row][found["text_mask"][row]]
        expected = torch.full((2, DIM), 0.5).half() if lost[row] else given_batch.text[row][given_batch.text_mask[row]]
        assert torch.equal(text, expected)
        assert not found["text"][row][~found["text_mask"][row]].any()
    kept = conditions(text_dropout=rate)(given_batch, drop=False)
    assert torch.equal(kept["text_mask"].sum(1), given_batch.text_mask.sum(1))


def test_a_clip_without_a_caption_has_the_empty_prompt_not_zeros():
    bare = batch()
    bare.text_mask[3] = False
    found = conditions()(bare)
    assert torch.equal(found["text"][3][found["text_mask"][3]], torch.full((2, DIM), 0.5).half())


def test_conditions_are_left_out_each_for_itself_and_unknown_ones_stay_unknown():
    drawn = conditions(dropout=0.5)
    rows = torch.cat([drawn(batch(epoch=epoch))["conditions"] for epoch in range(40)])
    was = torch.cat([batch().conditions] * 40)
    lost = rows.isnan()
    assert (lost | (rows == was)).all() and lost[was.isnan()].all()
    known = ~was.isnan().any(1)
    shares = [
        float((lost[known, 0] == a).logical_and(lost[known, 1] == b).float().mean()) for a in (0, 1) for b in (0, 1)
    ]
    assert all(share == pytest.approx(0.25, abs=0.08) for share in shares)
    assert not conditions(dropout=0.5)(batch(), drop=False)["conditions"][:, 0].isnan().any()


def test_a_network_with_some_conditions_or_without_text_is_told_no_more():
    found = conditions(names=("fps",), text=False)(batch())
    assert list(found) == ["conditions"] and found["conditions"].shape == (8, 1)
    assert torch.equal(found["conditions"][:, 0].isnan(), batch().conditions[:, 1].isnan())


@fast
@given(count=st.sampled_from([1, 2, 4, 8]))
def test_parts_of_a_batch_are_the_batch(count):
    whole = batch()
    told = conditions()(whole)
    pieces = parts(whole, told, count)
    assert [clip for part in pieces for clip in part.clip_ids] == whole.clip_ids
    assert torch.equal(torch.cat([part.latents["mean"] for part in pieces]), whole.latents["mean"])
    assert torch.equal(torch.cat([part.condition["text"] for part in pieces]), told["text"])


def test_noise_follows_from_its_key_alone():
    draws, like = KeyedGenerators(3), torch.empty(2, 4, 2, 3, 3)
    one, two = normal(like, [draws("noise", 5, 0), draws("noise", 5, 1)])
    assert torch.equal(normal(like[:1], [draws("noise", 5, 1)])[0], two)
    others = [KeyedGenerators(4)("noise", 5, 1), draws("noise", 6, 1), draws("times", 5, 1), draws("noise", 5, 11)]
    assert all(not torch.equal(normal(like[:1], [each])[0], two) for each in others)
    assert not torch.equal(one, two)
