"""The prefetcher: windows in the order asked, decoded ahead within bounds, whatever happens to a decoder."""

import random
import shutil
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from stages.decode.settings import FetchSettings
from stages.windows.prefetch import WindowPrefetcher
from stages.windows.shared_pixels import Arena
from stages.windows.window import Window
from tests.hostile import Canary, make_hostile_folder
from tests.stages.window_truth import naive, same, windows_of, write_films

FILMS = ("h264_b_frames.mp4", "mpeg4.mp4", "vp9.webm", "uneven.mkv", "uneven.mp4", "rotated.mp4", "one_group.mp4")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"), *FILMS)


@pytest.fixture(scope="module")
def pool():
    with WindowPrefetcher(2, FetchSettings(stall_seconds=20)) as made:
        yield made


def test_windows_of_many_sources_come_in_the_order_asked(films, pool):
    windows = [w for name in ("mpeg4.mp4", "vp9.webm", "uneven.mkv", "rotated.mp4") for w in windows_of(films / name)]
    random.Random(3).shuffle(windows)
    answers = list(pool.fetch(windows))
    assert [window for window, _ in answers] == windows
    assert all(same(pixels, window) for window, pixels in answers)


@pytest.mark.parametrize(
    "ahead",
    [pytest.param(1, marks=pytest.mark.slow), 3 * 3 * 32 * 48 * 3, pytest.param(1 << 20, marks=pytest.mark.slow)],
)
def test_pixels_that_are_kept_stay_what_they_are(films, ahead):
    """However little memory the pool shares with its children: it is used again only when nobody looks at it."""
    windows = [
        window for name in ("mpeg4.mp4", "vp9.webm") for window in windows_of(films / name, clips=16, bucket="3x32x48")
    ]
    with WindowPrefetcher(2, ahead_bytes=ahead) as pool:
        kept = [(window, pixels.video[1:, ::2].transpose(3, 0, 1, 2)) for window, pixels in pool.fetch(windows)]
        assert len(kept) == len(windows)
        list(pool.fetch(windows))
    for window, view in kept:
        assert np.array_equal(view, naive(window)[0][1:, ::2].transpose(3, 0, 1, 2))


def running(name, children=1, **settings):
    """A prefetcher whose children run a function of tests/stages/bad_windows.py."""
    return WindowPrefetcher(children, FetchSettings(**settings), function=f"tests.stages.bad_windows:{name}")


def test_pixels_come_by_the_pipe_where_memory_can_not_be_shared(films):
    with running("without_shared_memory") as pool:
        assert all(same(pixels, window) for window, pixels in pool.fetch(windows_of(films / "mpeg4.mp4")))


def test_the_memory_limit_of_a_decoder_leaves_out_what_it_shares(films):
    with WindowPrefetcher(1, FetchSettings(memory_gb=1), ahead_bytes=1 << 30) as pool:
        for window, pixels in pool.fetch(windows_of(films / "mpeg4.mp4")):
            assert same(pixels, window)
            assert np.shares_memory(pixels.video, np.frombuffer(pool._arena._memory, np.uint8)), "not by the pipe"


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


def counted(path):
    """How many windows of a source the children have been given by those functions that count."""
    marks = path.with_suffix(".count")
    return len(marks.read_bytes()) if marks.exists() else 0


def test_what_is_decoded_ahead_is_bounded(films):
    windows = windows_of(films / "mpeg4.mp4", clips=32, bucket="2x32x48")
    taken = []
    function = "tests.stages.bad_windows:counted"
    with WindowPrefetcher(1, ahead_bytes=4 * windows[0].nbytes, function=function) as pool:
        fetching = pool.fetch(window for window in windows if not taken.append(window))
        for count in range(1, 20):
            next(fetching)
            assert len(taken) <= count + 5
        until = time.monotonic() + 60
        while counted(films / "mpeg4.mp4") < len(taken) - 1:  # the child goes on while the caller is at work
            assert time.monotonic() < until
            time.sleep(0.01)
        fetching.close()


def test_the_time_that_the_caller_waits_is_counted(films):
    with running("takes_a_while", children=2) as pool:
        began = time.monotonic()
        list(pool.fetch(windows_of(films / "mpeg4.mp4", clips=8)))
        assert 0.15 < pool.waited_s <= time.monotonic() - began


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


@pytest.mark.slow
def test_a_decoder_that_is_killed_at_random_costs_at_most_the_windows_it_was_at(films):
    names = ("h264_b_frames.mp4", "vp9.webm", "one_group.mp4", "uneven.mp4")
    windows = [window for name in names for window in windows_of(films / name, clips=12, bucket="4x64x96")] * 2
    draw, answers = random.Random(4), []
    with WindowPrefetcher(2, ahead_bytes=8 * windows[0].nbytes) as pool:
        for answer in pool.fetch(windows):
            answers.append(answer)
            if draw.random() < 0.1:
                time.sleep(draw.uniform(0, 0.02))
                pool._children[draw.randrange(2)].interrupt()
        after = list(pool.fetch(windows[:4]))
    assert [window for window, _ in answers] == windows
    lost = [answer for _, answer in answers if isinstance(answer, str)]
    reasons = {"decoder died (signal 9: SIGKILL)", "interrupted while its source was being opened"}
    assert set(lost) <= reasons and len(lost) < len(windows) / 4
    right = {}
    for window, answer in answers + after:
        if not isinstance(answer, str):
            video, pts = right.setdefault(window, naive(window))
            assert answer.pts == pts and np.array_equal(answer.video, video)
    assert not any(isinstance(answer, str) for _, answer in after)


def test_a_decoder_that_dies_is_given_one_more_chance_with_its_window(films, tmp_path):
    path = shutil.copy(films / "mpeg4.mp4", tmp_path)
    with running("dies_once") as pool:
        assert all(same(pixels, window) for window, pixels in pool.fetch(windows_of(path)))
    with running("dies_of_odd_clips") as pool:
        for window, answer in pool.fetch(windows_of(path)):
            if int(window.clip_id) % 2:
                assert answer == "decoder died (signal 11: SIGSEGV)"
            else:
                assert same(answer, window)


def test_a_decoder_that_hangs_costs_what_is_left_of_its_source_and_nothing_else(films, tmp_path):
    bad, good = shutil.copy(films / "mpeg4.mp4", tmp_path / "bad.mp4"), films / "vp9.webm"
    with running("hangs_in_bad_sources", stall_seconds=0.5) as pool:
        answers = list(pool.fetch(windows_of(bad, clips=6) + windows_of(good) + windows_of(bad, clips=6)))
    assert counted(tmp_path / "bad.mp4") == 1
    assert same(answers[0][1], answers[0][0])
    assert {answer for _, answer in answers[1:6] + answers[10:]} == {"no progress for 0.5 s"}
    assert all(same(pixels, window) for window, pixels in answers[6:10])


def test_a_window_has_a_time_limit_and_an_error_of_ours_is_a_reason_too(films):
    windows = windows_of(films / "mpeg4.mp4")
    with running("never_ends", limit_seconds=0.5) as pool:
        assert {answer for _, answer in pool.fetch(windows)} == {"took longer than 0.5 s"}
    with running("breaks") as pool:
        for _, answer in pool.fetch(windows):
            assert answer.startswith("MemoryError: no room for a frame (bad_windows.py:")


def test_leaving_early_ends_at_once_and_the_prefetcher_goes_on(films, tmp_path):
    bad = shutil.copy(films / "mpeg4.mp4", tmp_path / "bad.mp4")
    windows = windows_of(films / "mpeg4.mp4")
    with WindowPrefetcher(2) as pool:
        fetching = pool.fetch(windows)
        next(fetching)
        with pytest.raises(RuntimeError, match="in the middle of another fetch"):
            next(pool.fetch(windows))
        fetching.close()
        function, pool.function = pool.function, "tests.stages.bad_windows:hangs_for_a_minute"
        fetching = pool.fetch([windows[0], *(replace(window, uri=str(bad)) for window in windows[1:])])
        next(fetching)
        began = time.monotonic()
        fetching.close()
        assert time.monotonic() - began < 30
        pool.function = function
        assert all(same(pixels, window) for window, pixels in pool.fetch(windows))


def test_an_error_of_whoever_asks_ends_the_fetch_and_not_the_pool(films, pool):
    def broken():
        yield windows_of(films / "mpeg4.mp4")[0]
        raise KeyError("no such column")

    with pytest.raises(KeyError, match="no such column"):
        list(pool.fetch(broken()))
    assert len(list(pool.fetch(windows_of(films / "mpeg4.mp4")))) == 4


@pytest.mark.slow
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
