"""How many workers each pool gets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.engines.pools import make_pools
from curate.errors import UserError
from stages.base import Needs
from tests.curate.engines.made import Asking, Graphic, Square

NEEDS = st.builds(
    Needs,
    cpus=st.sampled_from([0, 0.05, 0.5, 1, 3, 64]),
    gpus=st.sampled_from([0, 0, 0.25, 1, 2]),
    workers=st.sampled_from([None, None, 1, 3]),
)


@given(st.lists(NEEDS, min_size=1, max_size=5), st.sampled_from([1, 2, 3, 16, 64]), st.sampled_from([2, 3, 8]))
def test_pools_never_ask_for_more_than_there_is(needs, cpus, gpus):
    pools = make_pools(tuple(type("Any", (Square,), {"needs": need})() for need in needs), cpus, gpus)
    assert sum(pool.size * pool.needs.cpus for pool in pools) <= cpus + 1e-9
    assert sum(pool.size * pool.needs.gpus for pool in pools) <= gpus + 1e-9
    assert all(1 <= pool.size <= (pool.needs.workers or pool.size) for pool in pools)
    assert sum(len(pool.stages) for pool in pools) == len(needs)
    assert all(one.stages[0].needs != other.stages[0].needs for one, other in pairwise(pools))


def test_a_helper_that_hardly_computes_takes_no_decoder_away():
    assert [pool.size for pool in make_pools((Square(), Asking()), 2, 0)] == [2, 1]
    assert [pool.size for pool in make_pools((Square(), Asking()), 1, 0)] == [1, 1]


def test_a_stage_that_needs_a_gpu_says_so_where_there_is_none():
    with pytest.raises(UserError, match="'square' needs 1 GPU"):
        make_pools((Graphic(),), 2, 0)


def test_workers_that_take_a_part_of_a_gpu_are_as_many_as_cpus_and_such_parts_allow():
    class Part(Square):
        needs = Needs(gpus=0.1)

    def sizes(*stages, cpus, gpus):
        return [(pool.size, round(pool.needs.gpus, 3)) for pool in make_pools(stages, cpus, gpus)]

    assert sizes(Part(), cpus=4, gpus=1) == [(4, 0.1)]
    assert sizes(Part(), cpus=64, gpus=1) == [(10, 0.1)]
    assert sizes(Part(), Graphic(), cpus=5, gpus=1) == [(4, 0.071), (1, 0.714)]  # each has its share of the one GPU
    assert sizes(Part(), Graphic(), cpus=16, gpus=2) == [(14, 0.058), (2, 0.588)]
