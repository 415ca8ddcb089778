"""Windows: the very pixels of a whole decode, each of its own clip, whatever happens to the decoders."""

import itertools
import random
import shutil
import threading
import time
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.buckets import Bucket, choose, window_of
from stages.fetch_windows import WindowPool
from stages.frames import SourceError
from stages.images import ImageReader
from stages.pixels import Display, Scaler, VideoFrame
from stages.pyav_reader import PyAVReader
from stages.reading import open_source
from stages.seek import FetchSettings
from stages.shared_pixels import Arena
from stages.window_reader import WindowReader
from stages.windows import Window, covering
from tests.films import Drawn, compose
from tests.hostile import Canary, make_hostile_folder, moving_square, write_video
from tests.stages.test_seek import B_FRAMES, COUNT, FILMS, GROUP, textured


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name, how in FILMS.items():
        write_video(folder / name, textured(), **how)
    return folder


@cache
def known(path):
    """(time base, PTS of every frame, end PTS, displayed size) by a decode from the start."""
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        times = [frame.pts for frame in reader]
        return reader.info.time_base, times, reader.last_end_pts, (reader.info.width, reader.info.height)


def naive(window):
    """(video, PTS): every frame of the file is decoded, and of those the ones displayed at the window's times."""
    base, times, _, size = known(window.uri)
    start = window.start_pts * base + Fraction(window.offset_s).limit_denominator(10**8)
    shown = [max(pts for pts in times if pts * base <= start + k / Fraction(window.fps)) for k in range(window.frames)]
    box = covering(size, window.crop, window.height, window.width)
    made = {}
    with open_source(window.uri) as file:
        for frame in PyAVReader(file):
            if frame.pts in shown:
                made[frame.pts] = frame.cropped(box, (window.width, window.height))
    return np.stack([made[pts] for pts in shown]), shown


def spans(path, *cuts):
    """Rows of `clips`: the film cut at these frames."""
    base, times, end, (width, height) = known(str(path))
    bounds = [*(times[cut] for cut in cuts), end]
    return [
        {
            "clip_id": str(i), "media": "video", "start_pts": a, "end_pts": b, "time_base_num": base.numerator,
            "time_base_den": base.denominator, "width": width, "height": height,
        }
        for i, (a, b) in enumerate(pairwise(bounds))
    ]  # fmt: skip


def windows_of(path, clips=4, bucket="5x32x48", fps=12.0):
    rows = spans(path, *range(0, COUNT, COUNT // clips))
    return [window_of(row, {"uri": str(path)}, Bucket.parse(bucket), fps) for row in rows]


def same(pixels, window):
    video, pts = naive(window)
    return pixels.pts == pts and np.array_equal(pixels.video, video)


# The pixels


def drawn_windows(data, path):
    """A few windows of a film, in any order."""
    base, times, _, size = known(str(path))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(times) - 1), min_size=1, max_size=3)))
    windows = []
    for row in spans(path, *cuts):
        fps = data.draw(st.sampled_from([3.0, 8.0, 12.5, 24.0, 50.0]))
        ticks = row["end_pts"] - row["start_pts"]
        offset = data.draw(st.integers(0, ticks - 1))
        most = int((ticks - offset - 1) * base * Fraction(fps)) + 1
        frames = data.draw(st.integers(1, min(most, 12)))
        crop = data.draw(st.sampled_from([None, (0, 4, size[0], size[1] - 8), (6, 0, size[0] // 2, size[1])]))
        height, width = data.draw(st.sampled_from([(32, 32), (24, 40), (64, 48), (100, 140)]))
        windows.append(
            Window(
                str(len(windows)), str(path), path.stat().st_size, row["start_pts"], row["end_pts"], base,
                float(offset * base), fps, frames, crop, height, width,
            )
        )  # fmt: skip
    return data.draw(st.permutations(windows))


@pytest.mark.parametrize("name", FILMS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_window_has_the_pixels_of_a_whole_decode_to_the_byte(films, name, data):
    reader = WindowReader()
    for window in drawn_windows(data, films / name):
        pixels = reader.read(window)
        assert same(pixels, window), window
        assert pixels.video.shape == window.shape
    reader.close()


TURNS = [(rotation, mirrored) for rotation in (0, 90, 180, 270) for mirrored in (False, True)]


@pytest.mark.parametrize(("rotation", "mirrored"), TURNS)
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3), Fraction(8, 9)])
@pytest.mark.parametrize("name", ["yuv420p", "yuv411p", "yuv444p10le", "nv12", "rgb24"])
def test_a_crop_is_that_of_the_displayed_picture(name, aspect, rotation, mirrored):
    """Against the displayed picture in full size, cut and averaged by OpenCV."""
    rng = np.random.default_rng(1)
    rgb = cv2.resize(rng.integers(0, 255, (9, 16, 3)).astype(np.uint8), (320, 180), interpolation=cv2.INTER_CUBIC)
    stored = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=name)
    display = Display.of(320, 180, aspect, rotation, mirrored)
    frame = VideoFrame(stored, 0, 0.0, display, Scaler())
    whole = frame.picture(max(display.width, display.height))[..., ::-1]
    assert whole.shape[:2] == (display.height, display.width)
    for crop, (height, width) in itertools.product([None, (20, 12, 120, 150)], [(64, 64), (40, 96), (90, 60)]):
        x, y, w, h = box = covering((display.width, display.height), crop, height, width)
        expected = cv2.resize(whole[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_AREA)
        found = frame.cropped(box, (width, height))
        assert found.shape == expected.shape
        # A shift of one pixel gives 3.5. Where samples are not square, or one colour is for four of them, the
        # box falls between stored pixels; turned wrongly it would give more than 30.
        assert np.abs(found.astype(int) - expected).mean() < (1.5 if aspect == 1 and name != "yuv411p" else 9)


def test_a_picture_that_grows_is_bicubic_and_one_that_shrinks_is_averaged():
    gray = np.random.default_rng(2).integers(0, 255, (60, 60)).astype(np.uint8)
    stored = av.VideoFrame.from_ndarray(np.repeat(gray[..., None], 3, axis=2), "rgb24")
    frame = VideoFrame(stored, 0, 0.0, Display.of(60, 60, Fraction(1), 0, False), Scaler())
    for size, how in (((20, 20), cv2.INTER_AREA), ((40, 40), cv2.INTER_AREA), ((90, 90), cv2.INTER_CUBIC)):
        expected = cv2.resize(gray, size, interpolation=how)
        assert np.abs(frame.cropped((0, 0, 60, 60), size)[..., 1].astype(int) - expected).max() <= 2
    planar = VideoFrame(stored.reformat(format="yuv444p"), 0, 0.0, Display.of(60, 60, Fraction(1), 0, False), Scaler())
    expected = cv2.resize(gray, (40, 40), interpolation=cv2.INTER_AREA)
    assert np.abs(planar.cropped((0, 0, 60, 60), (40, 40))[..., 1].astype(int) - expected).max() <= 4


@pytest.mark.parametrize("uneven", [None, 3])
def test_every_frame_of_a_window_is_of_its_own_scene(tmp_path, uneven):
    """Films of hard cuts: the frame before and after each clip belongs to another scene."""
    truth = compose(
        tmp_path / "cuts.mp4", [(Drawn(seed, still=True), 0.0, 1.1 + 0.3 * seed) for seed in range(4)],
        fps=30, size=(128, 72), uneven=uneven,
    )  # fmt: skip
    path = str(truth.path)
    base, times, _, _ = known(path)
    assert times == truth.pts
    scenes = dict(zip(times, truth.shot, strict=True))
    rows = spans(path, 0, *(truth.index(cut) for cut in truth.cuts))
    assert len(rows) == 4
    reader = WindowReader()
    for fps, where in itertools.product([7.0, 16.0, 29.97, 30.0, 60.0], ["start", "middle"]):
        for scene, row in enumerate(rows):
            most = choose(row, [Bucket(frames, 18, 32) for frames in range(1, 150)], fps, 1.0)
            length = (row["end_pts"] - row["start_pts"]) * base
            assert most.frames == int(length * Fraction(str(fps)))
            pixels = reader.read(window_of(row, {"uri": path}, most, fps, where))
            assert {scenes[pts] for pts in pixels.pts} == {scene}
    # and what PTS say is what is seen: pictures of one scene are closer to each other than to the others'
    means = [reader.read(window_of(row, {"uri": path}, Bucket(8, 18, 32), 8.0)).video.mean((0, 1, 2)) for row in rows]
    for scene, row in enumerate(rows):
        frames = choose(row, [Bucket(frames, 18, 32) for frames in range(1, 150)], 30.0, 1.0).frames
        video = reader.read(window_of(row, {"uri": path}, Bucket(frames, 18, 32), 30.0)).video
        for picture in video:
            apart = [np.abs(picture.mean((0, 1)) - mean).sum() for mean in means]
            assert int(np.argmin(apart)) == scene


def test_a_frame_that_is_shown_for_long_fills_its_time(tmp_path):
    path = write_video(
        tmp_path / "a.mkv", moving_square(3), container="matroska", pts=[0, 100, 1000], time_base=Fraction(1, 1000)
    )
    window = Window("c", str(path), None, 0, 1100, Fraction(1, 1000), 0.0, 10.0, 11, None, 64, 96)
    pixels = WindowReader().read(window)
    assert pixels.pts == [0] + [100] * 9 + [1000]
    assert np.array_equal(pixels.video[1], pixels.video[9]) and not np.array_equal(pixels.video[9], pixels.video[10])


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_still_image_is_one_frame(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    cv2.imwrite(str(path), next(iter(textured(1, 96, 64))))
    row = {
        "clip_id": "c", "media": "image", "start_pts": 0, "end_pts": 1, "time_base_num": 1, "time_base_den": 1,
        "width": 96, "height": 64,
    }  # fmt: skip
    bucket = choose(row, [Bucket(1, 32, 32), Bucket(17, 32, 32)], 16.0)
    window = window_of(row, {"uri": str(path), "bytes": path.stat().st_size}, bucket, 16.0)
    pixels = WindowReader().read(window)
    with open_source(str(path)) as file:
        (frame,) = ImageReader(file)
    assert pixels.pts == [0] and pixels.crop == (16, 0, 64, 64)
    assert np.array_equal(pixels.video[0], frame.cropped(pixels.crop, (32, 32)))
    with pytest.raises(SourceError, match="a still image has one frame, not 17"):
        WindowReader().read(replace(window, frames=17, fps=100.0))


# The work


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_open_groups.mkv", "vp9.webm", "mpeg4.mp4", "hevc.mp4"])
def test_only_what_a_window_needs_is_decoded(films, name):
    reader = WindowReader()
    row = spans(films / name, 0, 70, 80)[1]
    reader.read(window_of(row, {"uri": str(films / name)}, Bucket(5, 32, 32), 12.0, "start"))
    assert reader.decoded <= 10 + 3 * GROUP < COUNT / 1.5


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "one_group.mp4", "uneven.mkv", "mpeg4.avi"])
def test_windows_of_one_source_in_a_row_decode_it_once(films, name):
    reader = WindowReader()
    for window in windows_of(films / name, clips=8, bucket="3x32x32", fps=10.0):
        reader.read(window)
    assert reader.decoded <= COUNT + 2 * GROUP


# The pool


@pytest.fixture(scope="module")
def pool():
    with WindowPool(2, FetchSettings(stall_seconds=20)) as made:
        yield made


def test_windows_of_many_sources_come_in_the_order_asked(films, pool):
    windows = [w for name in ("mpeg4.mp4", "vp9.webm", "uneven.mkv", "rotated.mp4") for w in windows_of(films / name)]
    random.Random(3).shuffle(windows)
    answers = list(pool.fetch(windows))
    assert [window for window, _ in answers] == windows
    assert all(same(pixels, window) for window, pixels in answers)


@pytest.mark.parametrize("ahead", [1, 3 * 3 * 32 * 48 * 3, 1 << 20])
def test_pixels_that_are_kept_stay_what_they_are(films, ahead):
    """However little memory the pool shares with its children: it is used again only when nobody looks at it."""
    windows = [
        window for name in ("mpeg4.mp4", "vp9.webm") for window in windows_of(films / name, clips=16, bucket="3x32x48")
    ]
    with WindowPool(2, ahead_bytes=ahead) as pool:
        kept = [(window, pixels.video[1:, ::2].transpose(3, 0, 1, 2)) for window, pixels in pool.fetch(windows)]
        assert len(kept) == len(windows)
        list(pool.fetch(windows))
    for window, view in kept:
        assert np.array_equal(view, naive(window)[0][1:, ::2].transpose(3, 0, 1, 2))


def test_pixels_come_by_the_pipe_where_memory_can_not_be_shared(films, pool, monkeypatch):
    monkeypatch.setattr("stages.fetch_windows.READ", "tests.stages.bad_windows:without_shared_memory")
    assert all(same(pixels, window) for window, pixels in pool.fetch(windows_of(films / "mpeg4.mp4")))


def test_memory_is_used_again_when_the_last_view_of_it_goes():
    arena = Arena(10_000)
    rooms = [arena.take(4096) for _ in range(4)]
    assert [room.start for room in rooms[:3]] == [0, 4096, 8192] and rooms[3] is None
    views = [arena.array(room, (4, 1024))[1:, ::2] for room in rooms[:3]]
    assert arena.take(1) is None
    views[1] = None
    assert arena.take(4097) is None and arena.take(4096).start == 4096
    views[0][:] = 7
    arena.close()
    assert (views[0] == 7).all() and arena.take(1) is None


def test_what_is_decoded_ahead_is_bounded(films):
    windows = windows_of(films / "mpeg4.mp4", clips=32, bucket="2x32x48")
    taken = []
    with WindowPool(1, ahead_bytes=4 * windows[0].nbytes) as pool:
        fetching = pool.fetch(window for window in windows if not taken.append(window))
        for count in range(1, 20):
            next(fetching)
            assert len(taken) <= count + 5
        until = time.monotonic() + 10  # the children go on while the caller is at work
        waited = pool.waited_s
        time.sleep(0.5)
        for _ in range(3):
            next(fetching)
        assert pool.waited_s - waited < 0.4 and time.monotonic() < until
        fetching.close()


def test_the_time_that_the_caller_waits_is_counted(films, pool, monkeypatch):
    monkeypatch.setattr("stages.fetch_windows.READ", "tests.stages.bad_windows:takes_a_while")
    before, began = pool.waited_s, time.monotonic()
    list(pool.fetch(windows_of(films / "mpeg4.mp4", clips=8)))
    waited, wall = pool.waited_s - before, time.monotonic() - began
    assert 0.15 < waited <= wall


# What may go wrong


def test_the_reason_is_told_for_each_window_that_can_not_be_had(films, pool, tmp_path):
    good = windows_of(films / "mpeg4.mp4")[0]
    cases = {
        "No such file": replace(good, uri=str(tmp_path / "gone.mp4")),
        "has changed since it was scanned: ": replace(good, size=17),
        "its time base is": replace(good, time_base=Fraction(1, 7), end_pts=10**6),
        "9 frames at 12 fps from 0.500 s on are not within the 1.000 s": replace(
            good, start_pts=0, end_pts=int(1 / good.time_base), offset_s=0.5, frames=9
        ),
        "from -1.000 s on are not within": replace(good, offset_s=-1.0),
        "the crop box 90x64 at 10,0 is not within the picture of 96x64": replace(good, crop=(10, 0, 90, 64)),
        "can be decoded: the file is damaged or cut off there": replace(
            good, start_pts=good.start_pts + 10**8, end_pts=good.end_pts + 10**8
        ),
    }
    asked = [window for bad in cases.values() for window in (bad, good)]
    answers = [answer for _, answer in pool.fetch(asked)]
    for reason, bad, fine in zip(cases, answers[::2], answers[1::2], strict=True):
        assert isinstance(bad, str) and reason in bad and "\n" not in bad
        assert same(fine, good), "the window behind it"


def test_a_decoder_that_is_killed_at_random_costs_at_most_the_windows_it_was_at(films):
    names = ("h264_b_frames.mp4", "vp9.webm", "one_group.mp4", "uneven.mp4")
    windows = [window for name in names for window in windows_of(films / name, clips=12, bucket="4x64x96")] * 3
    draw, over = random.Random(4), threading.Event()
    with WindowPool(2) as pool:

        def kill():
            while not over.wait(draw.uniform(0.05, 0.4)):
                pool._children[draw.randrange(2)].interrupt()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            answers = list(pool.fetch(windows))
        finally:
            over.set()
            killer.join()
        after = list(pool.fetch(windows[:4]))
    assert [window for window, _ in answers] == windows
    lost = [answer for _, answer in answers if isinstance(answer, str)]
    assert set(lost) <= {"decoder died (signal 9: SIGKILL)"} and len(lost) < len(windows) / 4
    right = {}
    for window, answer in answers + after:
        if not isinstance(answer, str):
            video, pts = right.setdefault(window, naive(window))
            assert answer.pts == pts and np.array_equal(answer.video, video)
    assert not any(isinstance(answer, str) for _, answer in after)


def test_a_decoder_that_dies_is_given_one_more_chance_with_its_window(films, pool, tmp_path, monkeypatch):
    path = shutil.copy(films / "mpeg4.mp4", tmp_path)
    monkeypatch.setattr("stages.fetch_windows.READ", "tests.stages.bad_windows:dies_once")
    assert all(same(pixels, window) for window, pixels in pool.fetch(windows_of(path)))
    monkeypatch.setattr("stages.fetch_windows.READ", "tests.stages.bad_windows:dies_of_odd_clips")
    for window, answer in pool.fetch(windows_of(path)):
        if int(window.clip_id) % 2:
            assert answer == "decoder died (signal 11: SIGSEGV)"
        else:
            assert same(answer, window)


def test_a_decoder_that_hangs_costs_what_is_left_of_its_source_and_nothing_else(films, tmp_path, monkeypatch):
    bad, good = shutil.copy(films / "mpeg4.mp4", tmp_path / "bad.mp4"), films / "vp9.webm"
    monkeypatch.setattr("stages.fetch_windows.READ", "tests.stages.bad_windows:hangs_in_bad_sources")
    with WindowPool(1, FetchSettings(stall_seconds=0.5)) as pool:
        began = time.monotonic()
        answers = list(pool.fetch(windows_of(bad, clips=6) + windows_of(good) + windows_of(bad, clips=6)))
        assert time.monotonic() - began < 5
    assert same(answers[0][1], answers[0][0])
    assert {answer for _, answer in answers[1:6] + answers[10:]} == {"no progress for 0.5 s"}
    assert all(same(pixels, window) for window, pixels in answers[6:10])


def test_a_window_has_a_time_limit_and_an_error_of_ours_is_a_reason_too(films, pool, monkeypatch):
    windows = windows_of(films / "mpeg4.mp4")
    monkeypatch.setattr("stages.fetch_windows.READ", "tests.stages.bad_windows:never_ends")
    with WindowPool(1, FetchSettings(limit_seconds=0.5)) as limited:
        assert {answer for _, answer in limited.fetch(windows)} == {"took longer than 0.5 s"}
    monkeypatch.setattr("stages.fetch_windows.READ", "tests.stages.bad_windows:breaks")
    for _, answer in pool.fetch(windows):
        assert answer.startswith("MemoryError: no room for a frame (bad_windows.py:")


def test_leaving_early_ends_at_once_and_the_pool_goes_on(films, monkeypatch):
    windows = windows_of(films / "mpeg4.mp4")
    with WindowPool(2) as pool:
        fetching = pool.fetch(windows)
        next(fetching)
        with pytest.raises(RuntimeError, match="in the middle of another fetch"):
            next(pool.fetch(windows))
        fetching.close()
        monkeypatch.setattr("stages.fetch_windows.READ", "tests.stages.bad_windows:hangs_in_bad_sources")
        fetching = pool.fetch([windows[0], *(replace(window, uri="bad") for window in windows[1:])])
        next(fetching)
        began = time.monotonic()
        fetching.close()
        assert time.monotonic() - began < 1.0
        monkeypatch.undo()
        assert all(same(pixels, window) for window, pixels in pool.fetch(windows))


def test_an_error_of_whoever_asks_ends_the_fetch_and_not_the_pool(films, pool):
    def broken():
        yield windows_of(films / "mpeg4.mp4")[0]
        raise KeyError("no such column")

    with pytest.raises(KeyError, match="no such column"):
        list(pool.fetch(broken()))
    assert len(list(pool.fetch(windows_of(films / "mpeg4.mp4")))) == 4


def test_hostile_files_give_pixels_or_reasons_and_touch_nothing(tmp_path, pool):
    with Canary(tmp_path) as canary:
        expected = make_hostile_folder(tmp_path, canary.port)
        windows = []
        for name in expected:
            for start, seconds in ((0, 0.1), (12, 1.0)):
                one = Window(name, str(tmp_path / name), None, start * 512, (start + 24) * 512, Fraction(1, 12288), 0.0,
                             2 / seconds, 2, None, 32, 32)  # fmt: skip
                windows.append(one)
        answers = list(pool.fetch(windows))
        assert canary.touched() == []
    assert len(answers) == len(windows)
    for window, answer in answers:
        if expected[window.clip_id] == "failed":
            assert isinstance(answer, str) and answer and "\n" not in answer
        elif not isinstance(answer, str):
            assert answer.video.shape == window.shape
    assert not any(isinstance(answer, str) for window, answer in answers if window.clip_id == "good.mp4")


@settings(max_examples=8, deadline=None)
@given(share=st.floats(0.05, 0.98))
def test_a_file_that_is_cut_off_gives_the_windows_before_its_end(films, tmp_path_factory, share):
    whole = tmp_path_factory.getbasetemp() / "whole_windows.mp4"
    if not whole.exists():
        write_video(whole, textured(), index_first=True, options=B_FRAMES)
    cut = whole.with_name("cut_windows.mp4")
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    reader, failed = WindowReader(), False
    for window in windows_of(whole, clips=8, bucket="4x32x32", fps=8.0):
        try:
            pixels = reader.read(replace(window, uri=str(cut)))
        except SourceError:
            failed = True
            continue
        assert pixels.video.shape == window.shape
        if not failed and window.clip_id == "0" and share > 0.5:
            assert same(pixels, window)
    reader.close()
    assert failed or share > 0.5
