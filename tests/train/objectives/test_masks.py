"""Masks: each kind gives what its name says and always leaves something to make."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.objectives.masks import draw_masks, known_mask, latents_mask, token_times

fast = settings(max_examples=80, deadline=None, derandomize=True)
KINDS = ("none", "predict", "backward", "interpolate", "single", "spatial")


@fast
@given(
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 9999),
)
def test_a_mask_gives_what_its_kind_says(kind, shape, seed):
    known = known_mask(kind, shape, torch.Generator().manual_seed(seed))
    frames = shape[0]
    assert known.shape == shape and known.dtype == torch.bool and not known.all()
    whole = known.flatten(1)
    if kind == "spatial":
        assert (known == known[:1]).all()
        rows, columns = (~known[0]).any(1).nonzero(), (~known[0]).any(0).nonzero()
        assert (~known[0]).sum() == len(rows) * len(columns)  # a box
        assert 4 * len(rows) >= shape[1] and 4 * len(columns) >= shape[2]
        return
    assert (whole.all(1) == whole.any(1)).all()
    given_frames = whole.all(1).nonzero().flatten().tolist()
    count = len(given_frames)
    if kind == "none" or frames == 1 or (kind == "interpolate" and frames == 2):
        assert count == 0
    elif kind == "predict":
        assert given_frames == list(range(count)) and 1 <= count <= max(1, frames // 2)
    elif kind == "backward":
        assert given_frames == list(range(frames - count, frames)) and 1 <= count <= max(1, frames // 2)
    elif kind == "interpolate":
        missing = sorted(set(range(frames)) - set(given_frames))
        assert given_frames[0] == 0 and given_frames[-1] == frames - 1
        assert missing == list(range(missing[0], missing[-1] + 1))
    else:
        assert count == 1


def test_masks_are_drawn_at_their_rates_and_by_seed():
    rates = {"predict": 0.3, "single": 0.2}
    known = draw_masks(1500, (5, 4, 4), rates, torch.Generator().manual_seed(1), patch=2)
    assert torch.equal(known, draw_masks(1500, (5, 4, 4), rates, torch.Generator().manual_seed(1), patch=2))
    counts = known.flatten(2).all(2).sum(1)
    assert (counts == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    later = known[:, 2:].flatten(1).any(1)  # of the two kinds only "single" reaches there, in 3 of 5
    assert later.float().mean().item() == pytest.approx(0.2 * 3 / 5, abs=0.04)


def test_masks_are_constant_in_a_patch():
    known = draw_masks(200, (3, 6, 8), {"spatial": 1.0}, torch.Generator().manual_seed(0), patch=2)
    patches = known.unflatten(3, (4, 2)).unflatten(2, (3, 2))  # (B, T, 3, 2, 4, 2)
    assert (patches == patches[:, :, :, :1, :, :1]).all() and known.any() and not known.all()


def test_latents_of_either_end_are_given():
    known = latents_mask((5, 2, 2), first=1, last=2)
    assert known.flatten(1).all(1).tolist() == [True, False, False, True, True]
    assert not latents_mask((5, 2, 2)).any()
    for first, last in ((5, 0), (3, 2), (-1, 0)):
        with pytest.raises(ValueError, match="at least one must be left"):
            latents_mask((5, 2, 2), first, last)


def test_token_times_are_zero_where_known():
    known = latents_mask((3, 2, 2), first=1).expand(2, 3, 2, 2)
    times = token_times(torch.tensor([0.25, 0.75]), known)
    assert times.shape == (2, 3, 2, 2)
    assert times[:, 0].eq(0).all() and times[0, 1:].eq(0.25).all() and times[1, 1:].eq(0.75).all()


def test_masks_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="unknown mask 'first'"):
        known_mask("first", (2, 2, 2))
    with pytest.raises(ValueError, match="at most 1 together"):
        draw_masks(1, (2, 2, 2), {"predict": 0.8, "single": 0.4})
    with pytest.raises(ValueError, match="none below 0"):
        draw_masks(1, (2, 2, 2), {"predict": -0.1})
    with pytest.raises(ValueError, match="patches of 2 x 2"):
        draw_masks(1, (2, 3, 2), {}, patch=2)
