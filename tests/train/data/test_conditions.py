"""Conditions are dropped at their rates; dropped and missing ones are given to the network as unknown."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.made_up import DIM, Clips, data
from train.data.conditions import Conditions, dropped_conditions

fast = settings(max_examples=25, deadline=None, derandomize=True)


def batch(bucket="9x32x32", count=8, epoch=0):
    return Clips(count).batch(bucket, list(range(count)), epoch)


def conditions(text_dropout=0.0, dropout=0.0, names=("motion", "fps"), text=True):
    return Conditions(data(4), names, 0, text_dropout, dropout, text)


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


def test_captions_are_dropped_at_their_rate_anew_in_every_epoch_and_alike_after_a_resume():
    ids = [f"{number:032x}" for number in range(4000)]
    keys = [(0, 0, "text"), (0, 1, "text"), (1, 0, "text"), (0, 0, "fps")]
    draws = [dropped_conditions(seed, epoch, ids, 0.3, condition) for seed, epoch, condition in keys]
    assert all(abs(each.float().mean().item() - 0.3) < 0.03 for each in draws)
    for one, other in itertools.combinations(draws, 2):
        assert abs((one & other).float().mean().item() - 0.09) < 0.02  # independent
    assert torch.equal(
        draws[1], torch.cat([dropped_conditions(0, 1, ids[:7], 0.3), dropped_conditions(0, 1, ids[7:], 0.3)])
    )
    assert not dropped_conditions(0, 0, ids, 0.0).any() and dropped_conditions(0, 0, ids, 1.0).all()
