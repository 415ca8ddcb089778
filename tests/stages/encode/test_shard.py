"""A shard on its way: what its parts say of how far it is."""

from hypothesis import given
from hypothesis import strategies as st

from stages.encode.shard import ShardJob
from stages.unit import Unit
from tests.stages.units import clip_of


@given(finished=st.lists(st.integers(0, 5), max_size=6), left=st.integers(0, 5), redone=st.booleans())
def test_the_parts_of_a_shard_report_every_clip_once_and_the_last_one_has_the_clips(finished, left, redone):
    clips = [clip_of(str(number)) for number in range(sum(finished) + left)]
    job = ShardJob(Unit("u", clips, redone=redone))
    parts = []
    for count in finished:
        job.finished += count
        parts.append(job.part())
    parts.append(job.end())
    assert sum(part.progress for part in parts) == len(clips)
    assert [part.part for part in parts] == list(range(len(parts)))
    assert [part.last for part in parts] == [False] * len(finished) + [True]
    assert [len(part.clips) for part in parts] == [0] * len(finished) + [len(clips)]
    assert {(part.unit_id, part.redone) for part in parts} == {("u", redone)}
