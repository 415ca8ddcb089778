"""A window of a file that was damaged or replaced after its scan fails; none is filled up with frames shown again."""

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from stages.frames import SourceError
from stages.unit import Source
from stages.windows.buckets import Bucket, window_of
from stages.windows.prefetch import WindowPrefetcher
from tests.hostile import write_video
from tests.stages.decode.test_seek import B_FRAMES, textured
from tests.stages.window_truth import UriReader, known, same, spans, windows_of, write_films


def whole(path, bucket, fps=8.0):
    """The window of all of a film."""
    (row,) = spans(path, 0)
    return window_of(row, Source("s", str(path), bytes=path.stat().st_size), bucket, fps, "start")


def damaged(data, seed, length=500):
    """The bytes with `length` of those in the middle of the pictures changed."""
    out = bytearray(data)
    begin = data.index(b"mdat") + 4
    size = int.from_bytes(data[begin - 8 : begin - 4], "big") - 8
    at = random.Random(seed).randrange(begin + size // 3, begin + 2 * size // 3)
    for i in range(at, min(at + length, begin + size)):
        out[i] ^= 0x5A
    return bytes(out)


@pytest.mark.parametrize("count", [8, 15])
def test_a_shorter_film_of_the_same_size_is_told_by_its_end(tmp_path, count):
    path = write_video(tmp_path / "a.mp4", textured(16), fps=8)
    window = whole(path, Bucket(16, 32, 32))
    size = path.stat().st_size
    shorter = write_video(tmp_path / "b.mp4", textured(count), fps=8).read_bytes()
    left = size - len(shorter)
    path.write_bytes(shorter + left.to_bytes(4, "big") + b"free" + bytes(left - 8))
    assert path.stat().st_size == size
    with pytest.raises(SourceError, match=f"the source ends at {count / 8:.3f} s now, the clip goes to 2.000 s"):
        UriReader().read(window)
    with WindowPrefetcher() as pool:
        ((_, answer),) = pool.fetch([window])
    assert isinstance(answer, str) and "the file has changed or is damaged" in answer
    # what the shorter film has is given: the end is not come to
    assert UriReader().read(replace(window, frames=count - 2)).video.shape[0] == count - 2


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "one_group.mp4", "mpeg4.mp4", "hevc.mp4"])
def test_no_frame_stands_for_one_that_the_damage_took(tmp_path, name):
    """Whatever is given has the very frames of the whole file; and damage does take windows."""
    path = write_films(tmp_path, name) / name
    data = path.read_bytes()
    windows = list(windows_of(path, clips=4, bucket="8x32x32", fps=12.0))
    truth = [UriReader().read(window).pts for window in windows]
    reasons = []
    for seed in range(6):
        path.write_bytes(damaged(data, seed))
        reader = UriReader()
        for window, pts in zip(windows, truth, strict=True):
            try:
                assert reader.read(window).pts == pts
            except SourceError as error:
                reasons.append(str(error))
        reader.close()
    assert any("can't be decoded: the file is damaged there" in reason for reason in reasons)


def test_damage_costs_the_windows_that_lean_on_it_and_no_others(tmp_path):
    path = write_video(tmp_path / "a.mp4", textured(96), options=B_FRAMES)
    windows = [window for window in windows_of(path, clips=8, bucket="4x32x32", fps=8.0)]
    truth = [UriReader().read(window).video for window in windows]
    data = path.read_bytes()
    path.write_bytes(damaged(data, 1))
    forward, backward = UriReader(), UriReader()
    answers = {}
    for reader, order in ((forward, windows), (backward, windows[::-1])):
        for window in order:
            try:
                answer = reader.read(window).video
            except SourceError:
                answer = None
            answers.setdefault(window.clip_id, []).append(answer)
    lost = [window.clip_id for window in windows if answers[window.clip_id][0] is None]
    assert 1 <= len(lost) <= 3
    for window, video in zip(windows[-2:], truth[-2:], strict=True):
        assert all(np.array_equal(answer, video) for answer in answers[window.clip_id])
    assert all((one is None) == (other is None) for one, other in answers.values())


@pytest.mark.parametrize(
    "pts",
    [
        [0, 10, 20, 30, 500, 510, 1200, 1210, 1300, 1310, 1320, 1700, 1800, 1900, 2000, 2100],
        [0, 5000, 10000, 17000],  # a slide show
        [0, 40, 80, 120, 9000],
    ],
)
@pytest.mark.parametrize(("container", "kind"), [("matroska", "mkv"), ("mp4", "mp4")])
@pytest.mark.parametrize("group", ["1", "250"])
def test_frames_that_are_shown_for_long_are_no_damage(tmp_path, pts, container, kind, group):
    path = write_video(
        tmp_path / f"a.{kind}", textured(len(pts)), container=container, pts=pts, time_base=Fraction(1, 1000),
        options={"g": group},
    )  # fmt: skip
    base, times, end, _ = known(str(path))
    fps = 4.0
    for first in range(len(times)):
        row = spans(path, first)[0]
        frames = int((end - times[first]) * base * Fraction(fps))
        if frames:
            window = window_of(row, Source("s", str(path)), Bucket(frames, 32, 32), fps, "start")
            assert same(UriReader().read(window), window)
