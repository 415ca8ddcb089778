"""Which frames are sampled, and which are at hand when a clip's span is known."""

from __future__ import annotations

import time
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.frames import SAMPLE_SIDE, FrameRequest
from stages.scan.samples import Candidates, Sampler, encode_jpeg, shrink
from tests.stages.drawn import DrawnFrame, samples, span, view

PLAIN = np.full((9, 16, 3), 100, np.uint8)


def frames(fps: float, seconds: float, start: float = 0.0):
    return (DrawnFrame(start + index / fps, PLAIN) for index in range(round(seconds * fps)))


def stamps(rates: list[float]) -> list[float]:
    """Time stamps of a film whose steps are 1/rate."""
    return list(np.cumsum([0.0] + [1 / rate for rate in rates]))


# --- the sampler


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.floats(0.5, 120), min_size=1, max_size=300), start=st.floats(0, 1000))
def test_a_sample_is_the_first_frame_of_its_half_second(steps, start):
    times = [start + at for at in stamps(steps)]
    taken = [sample.seconds for sample in samples(DrawnFrame(at, PLAIN) for at in times)]
    grid = {int((round(at * 90_000) - round(start * 90_000)) / 45_000 + 0.002): at for at in reversed(times)}
    assert taken == pytest.approx(sorted(grid.values()), abs=1e-4)


@pytest.mark.parametrize("fps", [5, 12, 23.976, 25, 29.97, 60])
def test_two_samples_a_second_whatever_the_rate(fps):
    taken = [sample.seconds for sample in samples(frames(fps, 10))]
    assert len(taken) == 20
    assert all(0 <= at - index * 0.5 < 1 / fps + 0.001 for index, at in enumerate(taken))


def test_at_low_rates_every_frame_is_a_sample_once():
    assert [sample.seconds for sample in samples(frames(0.5, 20))] == [2.0 * index for index in range(10)]


def test_a_time_stamp_rounded_below_the_grid_still_counts():
    times = [0.0, 0.250, 0.4995, 0.750, 0.9993, 1.250]
    assert [sample.seconds for sample in samples(DrawnFrame(at, PLAIN) for at in times)] == pytest.approx(
        [0.0, 0.4995, 0.9993], abs=1e-4
    )


@pytest.mark.parametrize(
    "fps, step",
    [
        (60, 5 / 60),
        (50, 4 / 50),
        (30, 3 / 30),
        (25, 2 / 25),
        (24, 2 / 24),
        (16, 2 / 16),
        (10, 0.1),
        (4, 0.25),
    ],
)
def test_a_trail_has_three_frames_a_twelfth_apart_or_a_little_more(fps, step):
    last = samples(frames(fps, 3))[-1]
    times = [at for at, _ in last.trail]
    assert times[-1] == last.seconds and len(times) == 3
    assert [b - a for a, b in pairwise(times)] == pytest.approx([step, step], abs=1e-3)


def test_the_first_sample_has_a_trail_of_itself_alone():
    assert [at for at, _ in next(iter(samples(frames(24, 1)))).trail] == [0.0]


def test_a_trail_never_runs_over_a_jump_back_in_time():
    times = [0, 0.1, 0.2, 0.3, 0.4, 0.05, 0.5]
    assert [at for at, _ in samples(DrawnFrame(at, PLAIN) for at in times)[-1].trail] == pytest.approx([0.05, 0.5])


def test_a_sample_holds_its_luma_the_small_picture_and_the_means_of_rows_and_columns():
    image = view(0, 0, 1280, 720)
    sample = samples(iter([DrawnFrame(0, image)]))[0]
    luma = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    assert sample.gray.shape == (270, SAMPLE_SIDE) and sample.small.shape == (72, 128, 3)
    np.testing.assert_allclose(sample.row_luma, luma.mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(sample.column_luma, luma.mean(axis=0), atol=1e-3)
    assert sample.trail[0][1].shape == (72, 128)


def test_a_frame_that_is_no_sample_costs_next_to_nothing():
    sampler = Sampler()
    film = list(frames(10_000, 0.49))
    sampler.observe(film[0])
    began = time.process_time()
    for frame in film[1:]:
        assert sampler.observe(frame) is None
        assert frame.pictures_asked == 0
    assert (time.process_time() - began) / len(film) < 100e-6  # 2 us on a free machine


# --- the candidates

REQUEST = FrameRequest((0.1, 0.5, 0.9), 320)


def numbered(seconds: float) -> DrawnFrame:
    """A frame that can be told from its neighbours by its colour."""
    code = round(seconds * 1000)
    return DrawnFrame(seconds, np.full((8, 16, 3), (code % 256, code // 256 % 256, code // 65536), np.uint8))


def offered(candidates: Candidates, start: float, end: float, fps: float = 24):
    for index in range(round(start * fps), round(end * fps)):
        candidates.offer(numbered(index / fps))


@settings(max_examples=40, deadline=None)
@given(length=st.floats(3.2, 60), start=st.floats(0, 100), lag=st.floats(0, 3), fps=st.sampled_from([8, 24, 30]))
def test_a_position_is_met_to_4_percent_of_the_clip(length, start, lag, fps):
    candidates = Candidates(320)
    offered(candidates, start, start + length + lag, fps)
    taken = candidates.take(span(start, start + length), REQUEST)
    for (seconds, _), share in zip(taken, REQUEST.positions, strict=True):
        assert start <= seconds < start + length
        assert abs(seconds - start - share * length) <= 0.041 * length


def test_the_next_clip_is_served_as_well_after_a_long_one():
    candidates = Candidates(320)
    offered(candidates, 0, 60 + 3)  # the cut at 60 s is known 3 s later
    candidates.take(span(0, 60), REQUEST)
    candidates.forget(60)
    offered(candidates, 63, 64)
    taken = candidates.take(span(60, 64), REQUEST)
    assert [seconds for seconds, _ in taken] == pytest.approx([60.4, 62, 63.6], abs=0.16)


def test_the_picture_belongs_to_the_time_it_is_given_with():
    candidates = Candidates(16)
    offered(candidates, 0, 40)
    for seconds, picture in candidates.take(span(0, 40), REQUEST):
        np.testing.assert_array_equal(picture, numbered(seconds).image)


@pytest.mark.parametrize("length", [60, 3600])
def test_memory_is_bounded_whatever_the_length(length):
    candidates = Candidates(320)
    most = 0
    for index in range(length * 4):
        candidates.offer(numbered(index / 4))
        most = max(most, len(candidates))
    assert most == 48


def test_a_frame_that_is_not_kept_is_not_converted():
    candidates = Candidates(320)
    film = [numbered(index / 100) for index in range(100)]
    for frame in film:
        candidates.offer(frame)
    assert sum(frame.pictures_asked for frame in film) == 4


def test_a_clip_never_gets_a_neighbours_frame():
    candidates = Candidates(320)
    offered(candidates, 0, 10)
    assert all(4 <= seconds < 4.3 for seconds, _ in candidates.take(span(4, 4.3), REQUEST))
    assert candidates.take(span(5.01, 5.02), REQUEST) == []


@settings(max_examples=40, deadline=None)
@given(length=st.floats(3.2, 60), start=st.floats(0, 100), fps=st.sampled_from([8, 24, 30]))
def test_the_middle_is_met_to_8_percent_by_half_as_many_pictures(length, start, fps):
    candidates = Candidates(320, interval_s=0.5)
    offered(candidates, start, start + length + 3, fps)
    ((seconds, _),) = candidates.take(span(start, start + length), FrameRequest((0.5,), 320))
    assert abs(seconds - start - 0.5 * length) <= 0.08 * length


@settings(max_examples=40, deadline=None)
@given(start=st.floats(0, 10), length=st.floats(0.05, 0.6), lag=st.floats(0.1, 3))
def test_a_clip_too_short_to_hold_a_picture_is_shown_by_a_small_one(start, length, lag):
    candidates = Candidates(320, interval_s=0.5)
    offered(candidates, 0, start + length + lag)
    ((seconds, picture),) = candidates.take(span(start, start + length), FrameRequest((0.5,), 320), spare=True)
    assert start - 1e-6 <= seconds < start + length
    assert max(picture.shape) in (320, 16)


def test_an_image_gives_its_one_frame_for_every_position():
    candidates = Candidates(320)
    candidates.offer(numbered(0))
    assert [seconds for seconds, _ in candidates.take(span(0, 0), REQUEST)] == [0, 0, 0]


def test_each_request_gets_its_own_size():
    candidates = Candidates(640)
    candidates.offer(DrawnFrame(0, view(0, 0, 1280, 720)))
    sizes = [candidates.take(span(0, 1), FrameRequest((0.5,), side))[0][1].shape for side in (640, 320)]
    assert sizes == [(360, 640, 3), (180, 320, 3)]


# --- thumbnails


def test_a_thumbnail_is_a_small_jpeg_of_the_picture():
    picture = view(0, 0, 960, 540)
    jpeg = encode_jpeg(picture)
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (180, 320, 3)
    assert cv2.PSNR(decoded, shrink(picture, 320)) > 30
    assert len(jpeg) < 30_000


def test_nothing_is_enlarged():
    assert shrink(PLAIN, 320) is PLAIN
