"""From boundaries to clips: in order, without overlap, long scenes split as they run, short ones kept."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.cuts.scenes import Gap, SceneCutter, SpanBuilder
from stages.cuts.settings import CutSettings
from tests.films import Drawn

BASE = Fraction(1, 1000)


@st.composite
def films(draw):
    """Frame times, gaps at frame times (some overlapping, as detectors may report), settings, lag in
    frames.
    """
    steps = draw(st.lists(st.integers(1, 400), min_size=1, max_size=120))
    start = draw(st.integers(-500, 500))
    pts = [start + int(t) for t in np.cumsum([0, *steps])]
    times = st.integers(0, len(pts) - 1)
    gaps = []
    for first in sorted(draw(st.lists(times, max_size=12))):
        length = draw(st.sampled_from([0, 0, 0, 1, 3, 9]))
        gaps.append(Gap(pts[first], pts[min(len(pts) - 1, first + length)]))
    shortest = draw(st.floats(0, 2))
    longest = shortest + draw(st.floats(0.05, 6))
    end = pts[-1] + draw(st.integers(1, 400))
    return pts, gaps, end, CutSettings(min_seconds=shortest, max_seconds=longest), draw(st.integers(0, 20))


def stream(pts, gaps, end, cut, lag):
    """The clips as they leave, with the settled time at the moment before each left."""
    builder, waiting, out = SpanBuilder(cut, BASE), list(gaps), []
    for k, now in enumerate(pts):
        builder.frame(now)
        settled = pts[max(0, k - lag)] / 1000
        known = [gap.start_pts / 1000 for gap in waiting[:1]]
        before = min(settled, builder.earliest_s, *known)
        clips = []
        while waiting and waiting[0].start_pts / 1000 < settled and waiting[0].end_pts <= now:
            clips += builder.gap(waiting.pop(0))
        if waiting:
            settled = min(settled, waiting[0].start_pts / 1000)
        clips += builder.settle(settled)
        out += [(clip, before) for clip in clips]
    for gap in waiting:
        out += [(clip, -1e9) for clip in builder.gap(gap)]
    return out + [(clip, -1e9) for clip in builder.finish(end)]


@settings(max_examples=150, deadline=None)
@given(films())
def test_clips_never_overlap_and_cover_every_frame_outside_the_gaps(film):
    pts, gaps, end, cut, lag = film
    clips = [clip for clip, _ in stream(pts, gaps, end, cut, lag)]
    for one, two in pairwise(clips):
        assert one.end_pts <= two.start_pts
        assert one.scene <= two.scene <= one.scene + 1
    assert all(clip.start_pts < clip.end_pts for clip in clips)
    covered = {p for p in pts if any(clip.start_pts <= p < clip.end_pts for clip in clips)}
    assert covered == {p for p in pts if not any(gap.start_pts <= p < gap.end_pts for gap in gaps)}
    for gap in gaps:  # no clip runs across a boundary
        assert not any(clip.start_pts < gap.start_pts < clip.end_pts for clip in clips)


@settings(max_examples=100, deadline=None)
@given(films())
def test_clips_do_not_depend_on_how_late_boundaries_are_known(film):
    pts, gaps, end, cut, lag = film
    late = [clip for clip, _ in stream(pts, gaps, end, cut, lag)]
    assert late == [clip for clip, _ in stream(pts, gaps, end, cut, len(pts))]


@settings(max_examples=100, deadline=None)
@given(films())
def test_only_a_frame_that_lasts_makes_a_clip_longer_than_the_longest(film):
    pts, gaps, end, cut, lag = film
    longest_frame = max(b - a for a, b in zip(pts, [*pts[1:], end], strict=True)) / 1000
    for clip, _ in stream(pts, gaps, end, cut, lag):
        assert clip.end_s - clip.start_s <= cut.max_seconds + longest_frame + 1e-6


@settings(max_examples=100, deadline=None)
@given(films())
def test_no_clip_ends_before_the_time_said_to_be_settled(film):
    pts, gaps, end, cut, lag = film
    settled = -1e9
    for clip, before in stream(pts, gaps, end, cut, lag):
        settled = max(settled, before)
        assert clip.end_s >= settled - 1e-6


def spans(seconds: float, **cut) -> list[tuple[float, float]]:
    pts = list(range(0, round(seconds * 1000), 100))
    clips = stream(pts, [], round(seconds * 1000), CutSettings(**cut), 0)
    return [(clip.start_s, clip.end_s) for clip, _ in clips]


def test_a_long_scene_is_split_and_its_rest_halved_where_it_is_too_long():
    assert spans(25, min_seconds=2, max_seconds=10) == [(0, 10), (10, 20), (20, 25)]
    assert spans(24, min_seconds=2, max_seconds=10) == [(0, 10), (10, 17), (17, 24)]
    assert spans(10, min_seconds=2, max_seconds=10) == [(0, 10)]
    assert spans(11, min_seconds=2, max_seconds=10) == [(0, 5.5), (5.5, 11)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 900), st.integers(2, 40), st.floats(0, 1))
def test_no_part_of_a_split_scene_is_shorter_than_half_of_the_longest(tenths, longest, share):
    found = spans(tenths / 10, min_seconds=share * longest * 0.99, max_seconds=longest)
    assert found == spans(tenths / 10, min_seconds=0, max_seconds=longest)  # the shortest clip changes no boundary
    if len(found) > 1:
        assert min(end - start for start, end in found) >= longest / 2 - 0.1 - 1e-6


def test_all_clips_of_a_split_scene_carry_its_number():
    pts = list(range(0, 30000, 100))
    clips = [c for c, _ in stream(pts, [Gap(25000, 25000)], 30000, CutSettings(max_seconds=10), 0)]
    assert [clip.scene for clip in clips] == [0, 0, 0, 1]


def test_a_long_take_leaves_clip_by_clip_and_is_not_held():
    cutter = SceneCutter(CutSettings(min_seconds=1, max_seconds=3), BASE)
    picture = Drawn(1).picture(0, (128, 72))
    left = []
    for k in range(600):
        frame = SimpleNamespace(pts=k * 40, seconds=k * 0.04, small=picture)
        left += [(clip, frame.seconds) for clip in cutter.observe(frame)]
        assert cutter.settled_s >= frame.seconds - 12
    assert [(clip.start_s, clip.end_s) for clip, _ in left] == [(3.0 * k, 3.0 * k + 3) for k in range(len(left))]
    assert len(left) >= 4
    assert all(when - clip.start_s < 3 + 1 + 7 for clip, when in left)


def test_frames_of_any_shape_are_taken():
    for size in ((128, 72), (72, 128), (2, 2), (1, 1), (128, 1)):
        cutter = SceneCutter(CutSettings(min_seconds=0), BASE)
        shots = [Drawn(k).picture(0, size) for k in range(2)]
        clips = []
        for k in range(40):
            frame = SimpleNamespace(pts=k * 40, seconds=k * 0.04, small=shots[k // 20])
            clips += cutter.observe(frame)
        clips += cutter.finish(1600)
        assert clips[0].start_pts == 0 and clips[-1].end_pts == 1600


def test_lengths_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ValueError, match="max_seconds"):
        CutSettings(min_seconds=5, max_seconds=5)
