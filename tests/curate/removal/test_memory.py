"""What keeps purged things out, and what takes them out of texts: properties."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.removal.plan import Plan, PurgedClip, PurgedSource
from curate.removal.texts import values_in, without_values
from stages.scan.purged import Purged, digest

IDS = st.text("0123456789abcdef", min_size=32, max_size=32)
NAMES = st.text("abc/._-' \"\\é", min_size=1, max_size=12)
SPANS = st.tuples(st.integers(0, 50), st.integers(1, 20)).map(lambda pair: (pair[0] / 2, (pair[0] + pair[1]) / 2))


def plan_of(sources, clips):
    made = [PurgedSource(one, f"/films/{name}.mp4", f"/moved/{name}.mp4", None, None) for one, name in sources]
    return Plan(made, [PurgedClip(clip, "f" * 32, 0.0, 1.0) for clip in clips])


@given(st.lists(st.tuples(IDS, NAMES), max_size=4), st.lists(IDS, max_size=4), st.data())
def test_no_text_names_a_purged_id_or_uri_afterwards_and_other_texts_stay(sources, clips, data):
    plan = plan_of(sources, clips)
    known = sorted(plan.source_ids | plan.clip_ids | plan.uris)
    words = st.one_of(st.sampled_from(known), NAMES) if known else NAMES
    value = {"select": data.draw(st.lists(words).map(", ".join)), "inputs": data.draw(st.lists(words)), "n": 1.5}
    left = without_values(value, plan)
    assert not any(values_in(text, plan) for text in [left["select"], *left["inputs"]])
    assert left["n"] == 1.5
    for before, after in zip(value["inputs"], left["inputs"], strict=True):
        assert after == before or values_in(before, plan)


@pytest.mark.parametrize("text", ["/films/a.mp4.bak", "/x/films/a.mp4", "/films/a.mp4/inside.mp4", "/films/a.mp44"])
def test_a_longer_name_is_another_file(text):
    assert without_values(text, plan_of([("0" * 32, "a")], [])) == text


@given(st.lists(SPANS, max_size=5), SPANS)
def test_a_clip_is_left_out_where_it_shares_a_moment_with_a_purged_one(spans, clip):
    moments = {at / 4 for start, end in spans for at in range(int(4 * start), int(4 * end))}
    own = {at / 4 for at in range(int(4 * clip[0]), int(4 * clip[1]))}
    assert Purged.overlap(spans, *clip) == bool(moments & own)


def test_a_picture_is_left_out_by_its_moment():
    assert Purged.overlap([(0.0, 0.0)], 0.0, 0.0)


@given(IDS, IDS)
def test_a_digest_stands_for_one_value_and_says_nothing_of_it(one, other):
    assert (digest(one) == digest(other)) == (one == other)
    assert len(digest(one)) == 32
    assert one not in json.dumps(digest(one))


def test_files_are_read_only_where_their_size_can_be_that_of_purged_bytes():
    assert Purged(sizes={5}).may_be(5)
    assert Purged(sizes={5}).may_be(None)
    assert not Purged(sizes={5}).may_be(6)
    assert Purged(every_size=True).may_be(6)
