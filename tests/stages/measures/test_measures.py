"""The signals: claims about what their numbers mean."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.frames import ClipAudio, Levels, Sample
from stages.measures.motion import _length
from stages.measures.observations import RECENT, Observations
from stages.measures.phash import dct_coefficients
from stages.measures.registry import MEASURES, measure_classes
from tests.stages.drawn import DrawnFrame, facts, film, measured, noisy, samples, span, view

DIAGONAL = math.hypot(960, 540)  # of the window of `view`, in texels
SIZES = [(426, 240), (640, 360), (1280, 720), (1920, 1080)]


def pan(percent_per_second: float, width: int = 480, height: int = 270, angle: float = 0.3, zoom: float = 1.0):
    """Draws a steady pan at that speed, in percent of the diagonal per second."""
    speed = percent_per_second / 100 * DIAGONAL / zoom

    def draw(seconds: float) -> np.ndarray:
        way = speed * (seconds - 0.75)
        return view(way * math.cos(angle), way * math.sin(angle), width, height, zoom)

    return draw


# --- every measure


def test_every_measure_gives_the_columns_and_types_it_promises():
    sound = ClipAudio([Levels(0.0, np.full(2000, 0.01, np.float32), np.full(2000, 0.1, np.float32))])
    heard = Observations(MEASURES).hear(facts(0, 2, audio=sound)) | {"audio_reason": "damaged"}
    row = measured(film(pan(5), 2, 12), *MEASURES) | heard
    kinds = {"double": float, "int64": int, "string": str, "bool": bool}
    measures = measure_classes(MEASURES)
    promised = {name: kinds[column.type] for measure in measures for name, column in measure.columns.items()}
    assert {column: type(value) for column, value in row.items()} == promised


def test_an_image_has_no_signal_that_needs_two_frames():
    observations = Observations(MEASURES)
    frame = DrawnFrame(0.0, view(0, 0, 640, 360))
    observations.observe(samples(iter([frame]))[0])
    row = observations.close(span(0, 0), facts(0, 0, 640, 360, media="image", frames=1, fps=None))
    unknown = {column for column, value in row.items() if value is None}
    several = {name for measure in measure_classes(MEASURES) if measure.reach != "sample" for name in measure.columns}
    assert unknown == several | {"bits_per_pixel"}


def test_a_clip_without_a_sample_is_unknown_in_every_column_but_its_bits():
    row = Observations(MEASURES).close(span(3, 3.2), facts(3, 3.2))
    assert {column for column, value in row.items() if value is not None} == {"bits_per_pixel"}


@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    level=st.integers(0, 255),
    noise=st.sampled_from([0, 40]),
)
def test_no_picture_however_odd_breaks_a_measure_or_yields_a_nan(width, height, level, noise):
    rng = np.random.default_rng(0)

    def draw(_: float) -> np.ndarray:
        return noisy(np.full((height, width, 3), level, np.uint8), noise, rng)

    row = measured(film(draw, 1.1, 12), *MEASURES)
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))


# --- what belongs to a clip


def test_nothing_that_looks_across_a_cut_counts():
    def draw(seconds: float) -> np.ndarray:
        return view(0, 0, 480, 270, seed=0 if seconds < 1.9 else 1)

    observations = Observations(["motion", "shake", "static"])
    for sample in samples(film(draw, 4, 24)):
        observations.observe(sample)
    for start, end in ((0, 1.9), (1.9, 4)):
        row = observations.close(span(start, end), facts(start, end))
        assert row == {
            "motion": pytest.approx(0, abs=0.01),
            "shake": pytest.approx(0, abs=0.01),
            "static": 1.0,
        }


def test_frames_between_clips_belong_to_none():
    observations = Observations(["exposure"])
    levels = {0: 50, 1: 50, 2: 200, 3: 200, 4: 100, 5: 100}  # the samples at 1.0 and 1.5 s lie between
    for slot, level in levels.items():
        observations.observe(flat_sample(slot / 2, level))
    rows = [observations.close(span(*ends), facts(*ends)) for ends in ((0, 1), (2, 3))]
    assert [row["luma_mean"] for row in rows] == [50, 100]


def test_memory_does_not_grow_with_the_length_of_a_take():
    observations = Observations(["letterbox", "phash"])
    most = max(measure.most_kept for measure in measure_classes(["letterbox", "phash"]))
    for slot in range(2000):
        observations.observe(flat_sample(slot / 2, 90, bar=0 if slot == 700 else 4))
        assert all(len(track.seen) <= most + RECENT + 1 for track in observations._tracks)
    row = observations.close(span(0, 1000), facts(0, 1000, 48, 28))
    assert row["letterbox"] == 0.0  # the one sample without bars, long merged, still counts
    assert row["phash"] is not None


def test_bars_in_every_sample_of_a_long_take_are_found():
    observations = Observations(["letterbox"])
    for slot in range(1000):
        observations.observe(flat_sample(slot / 2, 90, bar=4))
    row = observations.close(span(0, 500), facts(0, 500, 48, 28))
    assert (row["crop_y"], row["crop_h"]) == (4, 20)


def test_an_unknown_measure_is_refused_by_name():
    with pytest.raises(ValueError, match="no measure is called 'mootion'; there are motion, shake"):
        Observations(["mootion"])


def flat_sample(seconds: float, level: int, bar: int = 0) -> Sample:
    """A sample of one luma level between black bars so many rows high."""
    gray = np.full((28, 48), level, np.uint8)
    gray[:bar] = gray[28 - bar :] = 0
    rows, columns = (gray.mean(axis=axis, dtype=np.float32) for axis in (1, 0))
    trail = [(seconds, gray)]
    return Sample(round(seconds * 1000), seconds, cv2.merge([gray] * 3), gray, rows, columns, trail)


# --- motion


@pytest.mark.parametrize("speed", [0.5, 2, 8, 15, 30, 60])
def test_motion_of_a_pan_is_its_speed_in_percent_of_the_diagonal_per_second(speed):
    assert measured(film(pan(speed), 1.6, 24), "motion")["motion"] == pytest.approx(speed, rel=0.15)


@pytest.mark.parametrize("speed", [1.0, 25.0])
def test_motion_does_not_depend_on_resolution(speed):
    found = [measured(film(pan(speed, *size), 1.1, 24), "motion")["motion"] for size in SIZES]
    assert max(found) / min(found) < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("speed", [1.0, 25.0])
def test_motion_does_not_depend_on_the_frame_rate(speed):
    rates = [12, 15, 16, 23.976, 25, 29.97, 50, 60]
    found = [measured(film(pan(speed), 1.6, fps), "motion")["motion"] for fps in rates]
    assert max(found) / min(found) < 1.15


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    speed=st.floats(0.4, 40),
    angle=st.floats(0, 6.28),
    size=st.sampled_from(SIZES[:3]),
    fps=st.sampled_from([12, 24, 29.97, 60]),
)
def test_motion_is_right_for_any_pan_size_and_rate(speed, angle, size, fps):
    found = measured(film(pan(speed, *size, angle=angle), 1.1, fps), "motion")["motion"]
    assert found == pytest.approx(speed, rel=0.15)


def test_motion_of_a_zoom_is_the_mean_speed_of_its_points():
    rate = 0.06  # of the distance from the middle, per second

    def draw(seconds: float) -> np.ndarray:
        return view(0, 0, 480, 270, zoom=1 + rate * seconds)

    rows, columns = np.mgrid[-134.5:135, -239.5:240]
    truth = 100 * rate * np.hypot(rows, columns).mean() / math.hypot(480, 270)
    assert measured(film(draw, 1.1, 24), "motion")["motion"] == pytest.approx(truth, rel=0.15)


def test_motion_of_a_noisy_fixed_camera_is_near_zero():
    rng = np.random.default_rng(1)
    still = view(0, 0, 960, 540)
    assert measured(film(lambda _: noisy(still, 12, rng), 2.1, 24), "motion")["motion"] < 0.1


def test_motion_survives_a_variable_frame_rate():
    even = list(film(pan(6), 2.1, 60))
    kept = [frame for index, frame in enumerate(even) if index % 7 in (0, 1, 4) or 40 < index < 60]
    assert measured(iter(kept), "motion")["motion"] == pytest.approx(6, rel=0.15)


# --- shake


def shaken(jitter_percent: float, speed: float, seed: int = 3):
    rng = np.random.default_rng(seed)
    hand = rng.normal(0, jitter_percent / 100 * DIAGONAL, (100, 2))

    def draw(seconds: float) -> np.ndarray:
        x, y = hand[round(seconds * 24) // 2]
        return view(x + speed / 100 * DIAGONAL * (seconds - 2), y, 480, 270)

    return draw


@pytest.mark.slow
def test_a_smooth_pan_does_not_shake_and_a_hand_does():
    steady = measured(film(shaken(0, 20), 4, 24), "shake")["shake"]
    light, strong = (measured(film(shaken(jitter, 0), 4, 24), "shake")["shake"] for jitter in (0.2, 1.0))
    panned = measured(film(shaken(1.0, 10), 4, 24), "shake")["shake"]
    assert steady < 0.05 < light < strong / 3
    assert panned == pytest.approx(strong, rel=0.25)


def test_a_figure_walking_before_a_fixed_camera_is_no_shake():
    def draw(seconds: float) -> np.ndarray:
        picture = view(0, 0, 480, 270).copy()
        left = round(20 + 100 * seconds + 8 * math.sin(40 * seconds))
        picture[80:, left : left + 90] = view(300, 200, 480, 270, seed=1)[80:, :90]
        return picture

    assert measured(film(draw, 3, 24), "shake")["shake"] < 0.03


# --- sharpness, exposure, static, bits


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 3), size=st.sampled_from(SIZES[1:]))
def test_sharpness_falls_with_every_step_of_blur(seed, size):
    picture = view(0, 0, *size, zoom=0.4, seed=seed)
    scale = size[0] / 480
    blurred = [picture] + [cv2.GaussianBlur(picture, None, sigma * scale) for sigma in (0.7, 1.2, 2, 4)]
    found = [measured(iter([DrawnFrame(0, image)]), "sharpness")["sharpness"] for image in blurred]
    assert all(first > 1.15 * second for first, second in pairwise(found))


def test_sharpness_does_not_depend_on_the_resolution_above_the_working_size():
    found = [measured(iter([DrawnFrame(0, view(0, 0, *size))]), "sharpness")["sharpness"] for size in SIZES[1:]]
    assert max(found) / min(found) < 1.3


@pytest.mark.parametrize(
    "bgr, luma, saturation",
    [((0, 0, 0), 0, 0), ((255, 255, 255), 255, 0), ((0, 0, 200), 60, 255), ((50, 50, 100), 65, 127)],
)
def test_exposure_of_a_flat_colour(bgr, luma, saturation):
    row = measured(film(lambda _: np.full((90, 160, 3), bgr, np.uint8), 1, 12), "exposure")
    assert row["luma_mean"] == pytest.approx(luma, abs=1)
    assert row["contrast"] == pytest.approx(0, abs=1e-6)
    assert row["saturation"] == pytest.approx(saturation, abs=1)


def test_contrast_is_the_deviation_of_luma():
    halves = np.zeros((120, 240, 3), np.uint8)
    halves[:, 120:] = 200
    assert measured(film(lambda _: halves, 1, 12), "exposure")["contrast"] == pytest.approx(100, abs=1)


def test_a_slideshow_is_static_save_where_the_slide_changes():
    rng = np.random.default_rng(2)
    slides = [view(0, 0, 480, 270, seed=seed) for seed in (0, 1)]

    def draw(seconds: float) -> np.ndarray:
        return noisy(slides[int(seconds // 2) % 2], 3, rng)

    assert measured(film(draw, 4, 12), "static")["static"] == pytest.approx(6 / 7)


def test_one_small_moving_thing_is_enough_not_to_be_static():
    def draw(seconds: float) -> np.ndarray:
        picture = view(0, 0, 480, 270).copy()
        cv2.circle(picture, (240, round(100 + 20 * seconds)), 12, (255, 255, 255), -1)
        return picture

    assert measured(film(draw, 3, 12), "static")["static"] == 0.0


def test_bits_per_pixel_are_the_packets_bits_over_all_pixels():
    clip = facts(0, 2, 640, 360, frames=50, packet_bytes=720_000)
    assert Observations(["bits_per_pixel"]).close(span(0, 2), clip)["bits_per_pixel"] == pytest.approx(0.5)
    unknown = facts(0, 2, 640, 360, packet_bytes=None)
    assert Observations(["bits_per_pixel"]).close(span(0, 2), unknown)["bits_per_pixel"] is None


# --- phash


def distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def hashed(draw, seconds: float = 3, fps: float = 12) -> str:
    return measured(film(draw, seconds, fps), "phash")["phash"]


def test_a_hash_is_48_hex_digits_even_of_one_frame():
    short = hashed(pan(5), 0.4)
    assert len(short) == 48 and int(short, 16) >= 0
    assert short[:16] == short[16:32] == short[32:]


@pytest.mark.slow
def test_a_hash_outlives_resizing_and_brightness_and_noise():
    rng = np.random.default_rng(4)
    original = hashed(pan(4, 1280, 720))
    changes = {
        "resized": hashed(pan(4, 426, 240)),
        "brighter": hashed(lambda t: cv2.convertScaleAbs(pan(4, 1280, 720)(t), alpha=1.1, beta=15)),
        "noisy": hashed(lambda t: noisy(pan(4, 640, 360)(t), 8, rng)),
        "faster": hashed(pan(4, 640, 360), fps=30),
    }
    assert {name: distance(original, other) for name, other in changes.items() if distance(original, other) > 12} == {}


def test_hashes_of_different_takes_are_far_apart():
    found = [hashed(lambda t, seed=seed: view(10 * t, 0, 480, 270, seed=seed), 1.5, 6) for seed in range(6)]
    apart = [distance(a, b) for index, a in enumerate(found) for b in found[:index]]
    assert min(apart) > 50


def test_hashes_of_frames_are_told_once_while_nothing_changes():
    still = measured(film(lambda _: view(0, 0, 480, 270), 3, 12), "phash")["phash_frames"]
    moving = measured(film(lambda t: view(200 * t, 0, 480, 270), 3, 12), "phash")["phash_frames"]
    assert len(still) == 16 and len(moving) > 16 * 6
    assert distance(still, moving[:16]) <= 2  # both begin with the same picture


@pytest.mark.slow
def test_two_samplings_of_one_take_have_frames_in_common_whatever_their_offset():
    """A copy that begins later is sampled at other moments: its frames are still within 1/12 s of ours."""
    whole = measured(film(pan(10), 4, 24), "phash")["phash_frames"]
    for late in (3, 5, 7, 9):  # 24ths of a second
        part = measured(film(lambda t, late=late: pan(10)(t + late / 24), 3, 24), "phash")["phash_frames"]
        ours, theirs = ([text[i : i + 16] for i in range(0, len(text), 16)] for text in (whole, part))
        nearest = [min(distance(one, other) for other in ours) for one in theirs]
        assert sum(bits <= 10 for bits in nearest) > len(nearest) / 2, nearest


def test_a_flat_picture_has_one_hash_whatever_its_noise():
    rng = np.random.default_rng(5)
    found = {hashed(lambda _: noisy(np.full((270, 480, 3), 40, np.uint8), 4, rng), 1) for _ in range(3)}
    assert len(found) == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 30), height=st.integers(32, 128), blur=st.floats(1, 8))
def test_the_hash_is_of_the_dct_of_the_averaged_picture(seed, height, blur):
    noise = np.random.default_rng(seed).integers(0, 256, (height, 128), dtype=np.uint8)
    picture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), blur), None, 0, 255, cv2.NORM_MINMAX)
    small = cv2.resize(picture.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(dct_coefficients(picture), cv2.dct(small)[1:9, 1:9], atol=0.02)


def test_a_flow_reads_the_same_wherever_in_memory_it_lies():
    flow = np.random.default_rng(0).normal(size=(24, 32, 2)).astype(np.float32)
    read = set()
    for offset in range(0, 64, 4):
        memory = np.zeros(flow.nbytes + 128, np.uint8)
        start = -memory.ctypes.data % 64 + offset
        moved = memory[start : start + flow.nbytes].view(np.float32).reshape(flow.shape)
        moved[:] = flow
        read.add(_length(moved))
    assert len(read) == 1
