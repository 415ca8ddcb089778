"""With a batch size for each bucket: global batches are the same for any number of ranks and after any resume."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.loader import Loader

BUCKETS = {"5x16x24": 11, "1x16x16": 6}


def stream(folder, sizes, count, seed, rank=0, world=1, state=None):
    """The next batches of a rank, as (step, epoch, bucket, clips, sum of their latents), and the state after them."""
    with Loader(folder, batch_size=sizes, seed=seed, rank=rank, world=world, fields=["mean"]) as loader:
        if state is not None:
            loader.load_state_dict(state)
        found = [
            (each.step, each.epoch, each.bucket, each.clip_ids, each.latents["mean"].float().flatten(1).sum(1).tolist())
            for each in islice(loader, count)
        ]
        return found, loader.state_dict()


def together(parts):
    """The global batches that the ranks' parts make."""
    joined = []
    for step in zip(*parts, strict=True):
        assert len({each[:3] for each in step}) == 1, "all ranks see one bucket"
        clips, sums = ([value for each in step for value in each[place]] for place in (3, 4))
        joined.append((*step[0][:3], clips, sums))
    return joined


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    units=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    worlds=st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 3])),
    stops=st.integers(1, 11),
    seed=st.integers(0, 1000),
)
def test_global_batches_are_the_same_for_any_ranks_and_resume(dataset, units, worlds, stops, seed):
    sizes = {name: unit * 6 for name, unit in zip(BUCKETS, units, strict=True)}
    assume(any(size <= BUCKETS[name] for name, size in sizes.items()))
    whole, _ = stream(dataset, sizes, 12, seed)
    for step, _, bucket, clips, _ in whole:
        assert len(clips) == sizes[bucket], step
    before, after = worlds
    first = [stream(dataset, sizes, stops, seed, rank, before) for rank in range(before)]
    rest = [stream(dataset, sizes, 12 - stops, seed, rank, after, first[0][1])[0] for rank in range(after)]
    assert together([part for part, _ in first]) + together(rest) == whole


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.tuples(st.integers(1, 11), st.integers(1, 6)), seed=st.integers(0, 1000))
def test_an_epoch_takes_every_clip_as_often_as_with_one_size(dataset, sizes, seed):
    """Each bucket's stream takes all of its clips once before any of them again."""
    named = dict(zip(BUCKETS, sizes, strict=True))
    found, _ = stream(dataset, named, 40, seed)
    for bucket, samples in BUCKETS.items():
        drawn = [clip for _, _, name, clips, _ in found if name == bucket for clip in clips]
        for start in range(0, len(drawn) - samples + 1, samples):
            assert len(set(drawn[start : start + samples])) == samples


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"5x16x24": 2}, "batch_size lacks a size for the bucket 1x16x16 of the dataset"),
        ({"5x16x24": 2, "1x16x16": 2, "9x9x9": 1}, "batch_size of 9x9x9: the dataset has the buckets"),
        ({"5x16x24": 2, "1x16x16": 0}, "batch_size 0 of bucket 1x16x16"),
    ],
)
def test_sizes_that_do_not_fit_the_dataset_are_one_line(dataset, sizes, said):
    with pytest.raises(UserError, match=said) as raised:
        Loader(dataset, batch_size=sizes)
    assert "\n" not in str(raised.value)
