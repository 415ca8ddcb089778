"""Which ids are held out: the same in every dataset, never too few to mean something, never all."""

from hypothesis import given
from hypothesis import strategies as st

from curate.training.held_out import held_out_ids, one_source_note

IDS = [f"{number:032x}" for number in range(400)]


def test_an_id_stays_on_its_side_whatever_others_there_are():
    held = held_out_ids(IDS, 0.1, least=0)
    assert 20 < len(held) < 60
    assert held_out_ids(IDS[:200], 0.1, least=0) == held & set(IDS[:200])
    assert held <= held_out_ids(IDS, 0.3, least=0)


def test_a_small_share_of_few_sources_is_rounded_up_to_the_least_number():
    assert len(held_out_ids(IDS[:40], 0.01, least=8)) == 8
    assert held_out_ids(IDS[:40], 0.01, least=4) < held_out_ids(IDS[:40], 0.01, least=8)
    assert len(held_out_ids(IDS[:6], 0.01, least=8)) == 3  # never more than half for the sake of the least number


@given(st.sets(st.sampled_from(IDS), max_size=60), st.floats(0, 1, exclude_max=True), st.integers(0, 20))
def test_something_is_always_left_to_train_on(ids, share, least):
    held = held_out_ids(ids, share, least)
    assert held <= ids
    assert len(ids) < 2 or len(held) < len(ids)
    assert not (share == 0 or len(ids) < 2) or not held
    assert held == held_out_ids(sorted(ids, reverse=True), share, least)


def test_a_figure_on_one_source_says_so():
    assert "one source" in one_source_note(1)
    assert one_source_note(2) == ""
