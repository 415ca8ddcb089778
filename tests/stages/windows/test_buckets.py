"""Buckets: which one a clip takes, why none, and windows that never leave their clip."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.unit import Source
from stages.windows.buckets import Bucket, choose, frames_of, window_of
from stages.windows.window import covering

SOURCE = Source("s", "films/a.mp4", bytes=1000)
BASES = [Fraction(1, 16), Fraction(1, 1000), Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 12288)]


def clip(seconds=2.0, width=640, height=360, base=Fraction(1, 90000), start=0, **more):
    length = max(1, round(Fraction(seconds) / base))
    return {
        "clip_id": "c", "media": "video", "start_pts": start, "end_pts": start + length, "width": width,
        "height": height, "time_base_num": base.numerator, "time_base_den": base.denominator,
    } | more  # fmt: skip


def buckets(*names):
    return [Bucket.parse(name) for name in names]


sizes = st.integers(16, 4000)
some_buckets = st.lists(
    st.builds(Bucket, st.sampled_from([1, 5, 17, 33, 81]), st.integers(16, 1024), st.integers(16, 1024)),
    min_size=1, max_size=8, unique=True,
)  # fmt: skip
clips = st.builds(
    clip, seconds=st.floats(0.01, 12), width=sizes, height=sizes, base=st.sampled_from(BASES),
    start=st.integers(-10_000, 10**9),
)  # fmt: skip
rates = st.sampled_from([1.0, 8.0, 12.5, 16.0, 23.976, 24.0, 29.97, 30000 / 1001, 60.0])


@given(frames=st.integers(1, 99999), height=st.integers(1, 99999), width=st.integers(1, 99999))
def test_a_bucket_is_what_it_is_called(frames, height, width):
    bucket = Bucket(frames, height, width)
    assert str(bucket) == f"{frames}x{height}x{width}" and Bucket.parse(str(bucket)) == bucket


@pytest.mark.parametrize("text", ["", "17x256", "17x256x256x3", "0x256x256", "17x-1x256", "17 x 256 x 256", "axbxc"])
def test_what_is_no_bucket_is_told_with_what_one_looks_like(text):
    with pytest.raises(ValueError, match=r"is no bucket: FRAMESxHEIGHTxWIDTH is wanted, for instance 17x256x256"):
        Bucket.parse(text)


@pytest.mark.parametrize(
    ("row", "fps", "frames"),
    [
        (clip(2.0), 16.0, 32),
        (clip(2.0, base=Fraction(1, 16)), 16.0, 32),
        (clip(Fraction(33, 16), base=Fraction(1, 16)), 16.0, 33),
        (clip(Fraction(1001, 30000) * 90, base=Fraction(1001, 30000)), 30000 / 1001, 90),
        (clip(0.7, base=Fraction(1, 10)), 10.0, 7),  # 0.7 * 10 is less than 7 in floats
        (clip(0.3, base=Fraction(1, 1000)), 10.0, 3),
        (clip(Fraction(2) - Fraction(1, 90000)), 16.0, 32),  # a tick at either end is forgiven
        (clip(Fraction(2) - Fraction(3, 90000)), 16.0, 31),
        (clip(0.01), 16.0, 1),
        (clip(1, media="image", base=Fraction(1)), 16.0, 1),
    ],
)
def test_a_clip_has_the_frames_that_have_their_whole_time_in_it(row, fps, frames):
    assert frames_of(row, fps) == frames


@pytest.mark.parametrize(
    ("row", "names", "reason"),
    [
        (
            clip(1.2),
            ["33x256x256", "81x256x256"],
            "shorter than the shortest bucket, 33 frames at 16 fps; add a shorter one, or select only clips WHERE "
            "end_s - start_s >= 2.063: its 1.2 s are 19",
        ),
        (
            clip(1, media="image"),
            ["17x256x256"],
            "a still image is one frame, and the shortest bucket has 17; add a bucket of one frame",
        ),
        (
            clip(2.0, 320, 180),
            ["17x256x256", "17x512x512"],
            "too small for the buckets; add a smaller one, or raise max_upscale (1): "
            "320x180 pixels would be enlarged 1.42 times for 17x256x256",
        ),
        (
            clip(crop_x=0, crop_y=100, crop_w=640, crop_h=300),
            ["17x256x256"],
            "the crop box 640x300 at 0,100 is not within the picture of 640x360",
        ),
        (clip(), [], "there are no buckets"),
    ],
)
def test_a_clip_that_no_bucket_fits_says_why(row, names, reason):
    assert choose(row, buckets(*names), 16.0, 1.0) == reason


@pytest.mark.parametrize(
    ("row", "names", "chosen"),
    [
        (clip(2.0), ["17x256x256", "5x256x448", "1x256x448"], "17x256x256"),  # frames before aspect
        (clip(2.0), ["17x256x256", "17x192x336", "17x336x192"], "17x192x336"),  # aspect before area
        (clip(2.0), ["17x180x320", "17x360x640", "17x720x1280"], "17x360x640"),  # area, not enlarged
        (clip(2.0, 360, 640), ["17x256x256", "17x192x336", "17x336x192"], "17x336x192"),
        # with its bars the picture is 4:3, without them 2:1
        (
            clip(2.0, 640, 480, crop_x=0, crop_y=80, crop_w=640, crop_h=320),
            ["17x240x320", "17x160x320"],
            "17x160x320",
        ),
        (clip(2.0, 640, 480, crop_x=None, crop_y=None, crop_w=None, crop_h=None), ["17x240x320"], "17x240x320"),
        (clip(1, media="image"), ["17x256x256", "1x256x256"], "1x256x256"),
        (clip(0.02), ["17x256x256", "1x256x256"], "1x256x256"),
        (clip(2.0, 320, 180), ["17x512x512", "5x160x160"], "5x160x160"),  # rather fewer frames than none
    ],
)
def test_frames_first_then_aspect_then_area(row, names, chosen):
    assert str(choose(row, buckets(*names), 16.0, 1.0)) == chosen


@given(row=clips, all_buckets=some_buckets, fps=rates, most=st.sampled_from([1.0, 1.5, 4.0]))
def test_the_choice_is_the_best_that_fits_and_does_not_depend_on_their_order(row, all_buckets, fps, most):
    chosen = choose(row, all_buckets, fps, most)
    assert choose(row, all_buckets[::-1], fps, most) == chosen

    def enlarged(bucket):
        _, _, w, h = covering((row["width"], row["height"]), None, bucket.height, bucket.width)
        return max(bucket.width / w, bucket.height / h)

    fits = [b for b in all_buckets if b.frames <= frames_of(row, fps) and enlarged(b) <= most + 1e-6]
    if isinstance(chosen, str):
        assert not fits
        return
    assert chosen in fits and chosen.frames == max(bucket.frames for bucket in fits)
    rivals = [bucket for bucket in fits if bucket.frames == chosen.frames]

    def apart(bucket):
        return abs(math.log(row["width"] / row["height"]) - math.log(bucket.width / bucket.height))

    assert apart(chosen) <= min(map(apart, rivals)) + 1e-6
    alike = [bucket for bucket in rivals if apart(bucket) < apart(chosen) - 1e-6 or bucket == chosen]
    assert chosen.height * chosen.width == max(bucket.height * bucket.width for bucket in alike)


@given(data=st.data(), row=clips, fps=rates, where=st.sampled_from(["middle", "start"]))
def test_a_window_never_leaves_its_clip(data, row, fps, where):
    frames = data.draw(st.integers(1, frames_of(row, fps)))
    window = window_of(row, SOURCE, Bucket(frames, 64, 64), fps, where)
    places = window.places()  # raises where it would
    assert len(places) == frames and places == sorted(places)
    assert row["start_pts"] <= places[0] and places[-1] < row["end_pts"]
    if where == "start":
        assert places[0] == row["start_pts"]
    else:
        before = (places[0] - row["start_pts"]) * window.time_base
        after = (row["end_pts"] - places[-1]) * window.time_base
        assert abs(after - before) <= 1 / Fraction(fps) + 4 * window.time_base, "from its middle"


def test_a_window_says_where_its_pixels_come_from():
    row = clip(4.0, start=900, crop_x=0, crop_y=20, crop_w=640, crop_h=320)
    window = window_of(row, SOURCE, Bucket(16, 128, 256), 16.0)
    assert (window.uri, window.size, window.crop) == ("films/a.mp4", 1000, (0, 20, 640, 320))
    assert (window.start_pts, window.end_pts, window.offset_s) == (900, 900 + 4 * 90000, 1.5)
    assert window_of(row, Source("s", "a"), Bucket(16, 128, 256), 16.0, "start").offset_s == 0.0


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)), height=st.integers(1, 1000), width=st.integers(1, 1000)
)
def test_the_crop_is_the_largest_middle_of_its_aspect(size, height, width):
    x, y, w, h = covering(size, None, height, width)
    assert min(x, y) >= 0 and x + w <= size[0] and y + h <= size[1]
    assert abs(x - (size[0] - w) / 2) <= 1.5 and abs(y - (size[1] - h) / 2) <= 1.5
    exact_w = min(size[0], size[1] * width / height)
    exact_h = min(size[1], size[0] * height / width)
    assert abs(w - exact_w) <= 2 and abs(h - exact_h) <= 2
    assert all(part % 2 == 0 for part in (x, y)) and all(part % 2 == 0 or part == 1 for part in (w, h))
