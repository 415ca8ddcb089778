"""A member of a remote archive is fetched about once, in whatever order a decoder reads it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.decode.archives.files import OpenFile
from stages.decode.archives.stream import MemberStream

DATA = np.random.default_rng(0).bytes(100_000)


def stream(start, length, block):
    """(the stream, the ranges that it fetched so far)"""
    ranges = []

    def read_at(at, size):
        ranges.append((at, size))
        return DATA[at : at + size]

    return MemberStream(OpenFile(len(DATA), "", None, read_at), start, length, block), ranges


@given(
    start=st.integers(0, 50_000),
    length=st.integers(0, 50_000),
    block=st.sampled_from([997, 4096, 70_000]),
    reads=st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 9000)), max_size=20),
)
def test_reads_give_the_member_s_bytes_and_nothing_beside_it_is_fetched(start, length, block, reads):
    member = DATA[start : start + length]
    opened, ranges = stream(start, length, block)
    with opened:
        for place, size in reads:
            opened.seek(place)
            data = opened.read(size)
            assert member[place : place + size].startswith(data) and bool(data) == (place < length)
    assert all(start <= at and at + size <= start + length for at, size in ranges)


def test_a_film_whose_index_is_at_its_end_is_fetched_once_up_to_ten_blocks_and_a_longer_one_once_and_a_block():
    for blocks in (5, 10, 25, 90):
        block = 1000
        opened, ranges = stream(77, blocks * block, block)
        with opened:
            opened.read(64)
            opened.seek((blocks - 1) * block + 10)  # the index
            opened.read(900)
            opened.seek(64)
            while opened.read(300):
                pass
        fetched = sum(size for _, size in ranges)
        assert fetched <= blocks * block + (block if blocks > 10 else 0)
