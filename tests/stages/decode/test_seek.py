"""Frames by seeking: the very frames of a whole decode, few of them decoded, and an end on every file."""

import shutil
import time
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.decode.fetch import fetch
from stages.decode.fetch_messages import ClipSpan, FetchRequest
from stages.decode.pyav_reader import PyAVReader
from stages.decode.seek import FetchFrames
from stages.decode.seek_reader import SeekReader
from stages.decode.settings import FetchSettings
from stages.decode.sources import open_source
from stages.frames import FrameRequest, SourceError
from stages.unit import Clip, Source, Unit
from tests.hostile import moving_square, write_video

COUNT, GROUP = 96, 12  # frames of a film, and of a group of pictures
B_FRAMES = {"g": str(GROUP), "bf": "3", "preset": "veryfast", "threads": "1"}


def textured(count=COUNT, width=96, height=64):
    """Frames that differ everywhere, so that no two of a film are taken for each other."""
    rng = np.random.default_rng(5)
    ground = cv2.resize(rng.integers(0, 255, (16, 48, 3)).astype(np.uint8), (4 * width, height))
    for i in range(count):
        yield np.ascontiguousarray(ground[:, 3 * i % (3 * width) :][:, :width])


def uneven(count=COUNT):
    """PTS in milliseconds: distances of 5 to 120, in no order."""
    steps = np.random.default_rng(8).integers(5, 120, count)
    return [int(pts) for pts in np.cumsum(steps)]


FILMS = {
    "h264_b_frames.mp4": {"options": B_FRAMES},
    "h264_open_groups.mkv": {
        "options": B_FRAMES | {"x264-params": "open-gop=1:scenecut=0"},
        "container": "matroska",
    },
    "h264_open_groups.ts": {"options": B_FRAMES | {"x264-params": "open-gop=1:scenecut=0"}, "container": "mpegts"},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": f"keyint={GROUP}:open-gop=1:bframes=3:log-level=none", "preset": "ultrafast"},
    },
    "vp9.webm": {
        "codec": "libvpx-vp9",
        "container": "webm",
        "options": {"g": str(GROUP), "cpu-used": "8", "deadline": "realtime", "threads": "1"},
    },
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": str(GROUP), "bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "container": "avi", "options": {"g": str(GROUP)}},
    "uneven.mkv": {"options": B_FRAMES, "container": "matroska", "pts": uneven(), "time_base": Fraction(1, 1000)},
    "uneven.mp4": {"options": B_FRAMES, "pts": uneven(), "time_base": Fraction(1, 1000)},
    "rotated.mp4": {"options": B_FRAMES, "rotation": 90, "aspect": Fraction(4, 3)},
    "one_group.mp4": {"options": B_FRAMES | {"g": "250"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "container": "mpeg", "fps": 25, "options": {"g": str(GROUP), "bf": "2"}},
    "interlaced.ts": {
        "codec": "mpeg2video",
        "container": "mpegts",
        "fps": 25,
        "options": {"g": str(GROUP), "bf": "2", "flags": "+ildct+ilme"},
    },
    "interlaced.mp4": {"options": B_FRAMES | {"x264-params": "tff=1"}},
    "wmv2.asf": {"codec": "wmv2", "container": "asf", "options": {"g": str(GROUP)}},
    "vp8.ivf": {"codec": "libvpx", "container": "ivf", "options": {"g": str(GROUP), "cpu-used": "8", "threads": "1"}},
    "mpeg4.nut": {"codec": "mpeg4", "container": "nut", "options": {"g": str(GROUP), "bf": "2"}},
    "h264.flv": {"options": B_FRAMES, "container": "flv"},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "container": "avi", "options": {"g": str(GROUP), "bf": "2"}},
}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name, how in FILMS.items():
        write_video(folder / name, textured(), **how)
    return folder


@cache
def decoded(path: Path):
    """(time base, PTS, pictures, end PTS) of every frame, by a decode from the start."""
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        frames = [(frame.pts, frame.picture(64)) for frame in reader]
        return reader.info.time_base, [pts for pts, _ in frames], [p for _, p in frames], reader.last_end_pts


def fetched(path, spans, positions, sides=(64,), **more):
    """({clip id: pictures of each request, or the reason}, what it took)."""
    wants = tuple(FrameRequest(tuple(positions), side) for side in sides)
    *answers, took = fetch(open_source(str(path)), FetchRequest(spans, wants, **more))
    return {answer.clip_id: answer.pictures for answer in answers}, took


@pytest.mark.parametrize("name", FILMS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_sought_frame_is_the_one_that_a_whole_decode_shows_at_that_time(films, name, data):
    base, times, pictures, end = decoded(films / name)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(times)), min_size=2, max_size=5)))
    bounds = [times[cut] if cut < len(times) else end for cut in cuts]
    spans = [ClipSpan(str(i), *pair, base) for i, pair in enumerate(pairwise(bounds))]
    positions = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=4))
    answers, _ = fetched(films / name, spans, positions)
    for span in spans:
        for share, (seconds, picture) in zip(positions, answers[span.clip_id][0], strict=True):
            place = span.place(share)
            shown = max(i for i, pts in enumerate(times) if pts <= place)
            assert seconds == pytest.approx(float(times[shown] * base), abs=1e-9)
            assert np.array_equal(picture, pictures[shown])


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_open_groups.mkv", "vp9.webm", "mpeg4.mp4", "hevc.mp4"])
def test_only_the_group_of_pictures_of_a_frame_is_decoded(films, name):
    base, times, _, end = decoded(films / name)
    span = ClipSpan("c", times[70], end, base)
    _, took = fetched(films / name, [span], [0.0])
    assert took.decoded <= 3 * GROUP < COUNT / 2


def test_frames_of_one_group_of_pictures_cost_one_walk_through_it(films):
    base, times, _, _ = decoded(films / "one_group.mp4")
    spans = [ClipSpan(str(i), times[i], times[i + 8], base) for i in range(0, 80, 8)]
    _, took = fetched(films / "one_group.mp4", spans, [0.1, 0.5, 0.9], sides=(32, 64))
    assert took.decoded <= COUNT


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "hevc.mp4", "h264_open_groups.mkv", "vp9.webm", "mpeg4.avi"])
def test_asked_for_every_frame_in_turn_a_film_is_decoded_about_once(films, name):
    base, times, _, end = decoded(films / name)
    spans = [ClipSpan(str(i), *pair, base) for i, pair in enumerate(pairwise([*times, end]))]
    _, took = fetched(films / name, spans, [0.0])
    assert took.decoded <= 2 * COUNT


def test_every_request_gets_its_own_size_of_the_same_frame(films):
    base, times, _, end = decoded(films / "rotated.mp4")
    answers, _ = fetched(films / "rotated.mp4", [ClipSpan("c", times[0], end, base)], [0.5, 0.1], sides=(32, 80))
    small, large = answers["c"]
    assert [seconds for seconds, _ in small] == [seconds for seconds, _ in large]
    assert small[0][0] > small[1][0], "in the order of the positions"
    assert max(small[0][1].shape) == 32 and max(large[0][1].shape) == 80
    assert large[0][1].shape[0] < large[0][1].shape[1] or large[0][1].shape[0] == 80, "as displayed"


def test_a_still_image_gives_its_one_picture_at_every_position(tmp_path):
    picture = next(iter(textured(1)))
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    answers, _ = fetched(tmp_path / "a.png", [ClipSpan("c", 0, 1, Fraction(1))], [0.1, 0.5, 0.9], sides=(96,))
    assert len(answers["c"][0]) == 3
    assert all(seconds == 0.0 and np.array_equal(found, picture) for seconds, found in answers["c"][0])


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0.05, 0.98))
def test_a_truncated_file_ends_the_search_and_gives_what_is_left(films, tmp_path_factory, share):
    whole = tmp_path_factory.getbasetemp() / "whole.mp4"
    if not whole.exists():
        write_video(whole, textured(), index_first=True, options=B_FRAMES)
    base, times, pictures, end = decoded(whole)
    data = whole.read_bytes()
    cut = whole.with_name("cut.mp4")
    cut.write_bytes(data[: int(len(data) * share)])
    spans = [ClipSpan(str(i), times[i], times[i + 12] if i + 12 < COUNT else end, base) for i in range(0, COUNT, 12)]
    try:
        answers, took = fetched(cut, spans, [0.5])
    except SourceError as error:
        assert share < 0.4, error  # not even the first frame is there
        return
    assert took.decoded < 6 * COUNT
    for span, first in zip(spans, range(0, COUNT, 12), strict=True):
        if not isinstance(answer := answers[span.clip_id], str):
            ((_, picture),) = answer[0]
            assert picture.shape == pictures[first].shape
    if share < 0.5:
        assert "cut off there" in answers[spans[-1].clip_id]


def test_a_film_cut_off_long_before_a_clip_says_so_and_is_decoded_at_most_a_few_times(tmp_path):
    film = write_video(tmp_path / "a.mp4", moving_square(240), index_first=True, options=B_FRAMES)
    base, times, _, _ = decoded(film)
    data = film.read_bytes()
    film.write_bytes(data[: len(data) // 2])
    spans = [ClipSpan(str(i), times[i], times[i + 10], base) for i in range(200, 230, 10)]
    answers, took = fetched(film, spans, [0.1, 0.5, 0.9])
    assert all("cut off there" in answer for answer in answers.values())
    assert took.decoded < 2 * len(times)


def test_a_file_that_changed_since_its_scan_is_told(films, tmp_path):
    path = films / "mpeg4.mp4"
    base, times, _, end = decoded(path)
    span = ClipSpan("c", times[0], end, base)
    with pytest.raises(SourceError, match=r"has changed since it was scanned: \d+ bytes, then 17"):
        fetched(path, [span], [0.5], size=17)
    answers, _ = fetched(path, [ClipSpan("c", 0, 100, Fraction(1, 7))], [0.5], size=path.stat().st_size)
    assert "time base" in answers["c"]
    with pytest.raises(SourceError, match="No such file"):
        fetched(tmp_path / "gone.mp4", [span], [0.5])


# The stage


ONE = FrameRequest((0.1, 0.5, 0.9), 48)


def unit_of(path, clips=4, name="u"):
    base, times, _, end = decoded(path)
    bounds = [*times[:: len(times) // clips][:clips], end]
    rows = [
        {
            "clip_id": f"{name}{i}", "source_id": "s", "start_pts": a, "end_pts": b,
            "time_base_num": base.numerator, "time_base_den": base.denominator,
        }
        for i, (a, b) in enumerate(pairwise(bounds))
    ]  # fmt: skip
    source = Source("s", str(path), bytes=path.stat().st_size)
    return Unit(name, [Clip(row, source) for row in rows])


def with_frames(unit):
    """Ids of the clips that have the frames that were asked for."""
    return {clip.clip_id for clip in unit.clips if ONE in clip.pixels}


def lost(unit):
    """Why clips have no frames, by id."""
    return {clip.clip_id: clip.lost for clip in unit.clips if clip.lost is not None}


@pytest.fixture(scope="module")
def stage():
    made = FetchFrames((ONE,), FetchSettings(stall_seconds=5, limit_seconds=20))
    made.setup()
    yield made
    made.close()


def test_units_come_back_in_order_with_the_frames_of_every_clip(stage, films):
    units = [unit_of(films / name, name=name) for name in ("mpeg4.mp4", "vp9.webm", "h264_b_frames.mp4")]
    found = list(stage.stream(iter(units)))
    assert [unit.unit_id for unit in found] == [unit.unit_id for unit in units]
    for unit in found:
        assert unit.failure is None and not lost(unit)
        assert [len(clip.pixels[ONE]) for clip in unit.clips] == [3] * 4
        assert unit.seconds["seek"] > 0


def test_clips_that_gates_drop_are_not_fetched(stage, films):
    unit = unit_of(films / "mpeg4.mp4")
    for clip in unit.clips:
        clip.passing = clip.clip_id == "u1"
    (found,) = stage(unit)
    assert with_frames(found) == {"u1"} and not lost(found)


def test_a_unit_that_failed_before_is_passed_on_without_frames(stage, films):
    (found,) = stage.stream([unit_of(films / "mpeg4.mp4").failed("earlier")])
    assert found.failure == "earlier" and not with_frames(found) and not lost(found)


def test_a_missing_source_costs_its_clips_and_not_the_units_beside_it(stage, films):
    gone, there = unit_of(films / "mpeg4.mp4", name="gone"), unit_of(films / "mpeg4.mp4", name="there")
    gone.clips[0].source.uri = str(films / "never.mp4")  # that of them all
    first, second = stage.stream([gone, there])
    assert first.failure is None and len(lost(first)) == 4 and "No such file" in lost(first)["gone0"]
    assert len(with_frames(second)) == 4


def made(**limits):
    stage = FetchFrames((ONE,), FetchSettings(**limits))
    stage.setup()
    return stage


@pytest.mark.parametrize(
    ("how", "left", "reason"),
    [
        ("dies_once", 4, ""),
        ("always_dies", 2, "decoder died (signal 9: SIGKILL)"),
        ("hangs_after_one", 1, "no progress for 0.5 s"),
    ],
)
def test_a_decoder_that_dies_or_hangs_costs_clips_and_not_the_units(films, tmp_path, monkeypatch, how, left, reason):
    path = Path(shutil.copy(films / "mpeg4.mp4", tmp_path))
    stage = made(stall_seconds=0.5)
    try:
        monkeypatch.setattr("stages.decode.seek.FETCH", f"tests.stages.bad_fetch:{how}")
        (first,) = stage(unit_of(path, name="bad"))
        monkeypatch.undo()
        (second,) = stage(unit_of(path, name="next"))
    finally:
        stage.close()
    assert first.failure is None and len(with_frames(first)) == left
    assert set(lost(first).values()) == ({reason} if reason else set())
    assert len(lost(first)) == 4 - left
    assert len(with_frames(second)) == 4


def test_leaving_the_stream_early_ends_the_decoder_at_once(films, monkeypatch):
    stage = made()
    units = [unit_of(films / "mpeg4.mp4", name=str(i)) for i in range(20)]
    stream = stage.stream(units)
    next(stream)
    monkeypatch.setattr("stages.decode.seek.FETCH", "tests.stages.bad_fetch:hangs_after_one")
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 1.0
    stage.close()


def test_the_next_units_are_fetched_while_a_later_stage_works(films):
    stage = made()
    units = [unit_of(films / "mpeg4.mp4", name=str(i)) for i in range(6)]
    stream = stage.stream(units)
    next(stream)
    until = time.monotonic() + 10
    while not all(len(with_frames(unit)) == 4 for unit in units) and time.monotonic() < until:
        time.sleep(0.01)  # the later stage at work
    assert all(len(with_frames(unit)) == 4 for unit in units)
    stream.close()
    stage.close()


def test_what_waits_is_bounded_by_its_pixels(films, monkeypatch):
    stage = made()
    monkeypatch.setattr("stages.decode.seek.AHEAD_BYTES", 3 * stage._most_bytes(unit_of(films / "mpeg4.mp4")))
    taken = []

    def units():
        for i in range(10):
            taken.append(i)
            yield unit_of(films / "mpeg4.mp4", name=str(i))

    stream = stage.stream(units())
    next(stream)
    time.sleep(0.3)
    assert len(taken) <= 5
    stream.close()
    stage.close()


def test_av_can_seek_in_the_films_of_these_tests(films):
    """So that what passes above is not passed by decoding everything from the start."""
    for name in ("h264_b_frames.mp4", "h264_open_groups.mkv", "h264_open_groups.ts", "vp9.webm", "mpeg4.avi"):
        with open_source(str(films / name)) as file:
            reader = SeekReader(file)
            _, times, _, end = decoded(films / name)
            reader.frame_at(times[-20], times[0], end)
            assert not reader._from_start, name
