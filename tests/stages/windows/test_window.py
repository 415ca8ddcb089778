"""Windows: the very pixels of a whole decode, each of its own clip, and no more decoded than they take."""

import itertools
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.decode.display import Display
from stages.decode.images import ImageReader
from stages.decode.scaler import Scaler
from stages.decode.sources import open_source
from stages.decode.video_frame import VideoFrame
from stages.frames import SourceError
from stages.unit import Source
from stages.windows.buckets import Bucket, choose, window_of
from stages.windows.window import Window, covering
from tests.films import Drawn, compose
from tests.hostile import moving_square, write_video
from tests.stages.decode.test_seek import B_FRAMES, COUNT, FILMS, GROUP, textured
from tests.stages.window_truth import UriReader, known, same, spans, windows_of, write_films


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"), *FILMS)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", FILMS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_window_has_the_pixels_of_a_whole_decode_to_the_byte(films, name, data):
    reader = UriReader()
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
    reader = UriReader()
    for fps, where in itertools.product([7.0, 16.0, 29.97, 30.0, 60.0], ["start", "middle"]):
        for scene, row in enumerate(rows):
            most = choose(row, [Bucket(frames, 18, 32) for frames in range(1, 150)], fps, 1.0)
            length = (row["end_pts"] - row["start_pts"]) * base
            assert most.frames == int(length * Fraction(str(fps)))
            pixels = reader.read(window_of(row, Source("s", path), most, fps, where))
            assert {scenes[pts] for pts in pixels.pts} == {scene}
    # and what PTS say is what is seen: pictures of one scene are closer to each other than to the others'
    source = Source("s", path)
    means = [reader.read(window_of(row, source, Bucket(8, 18, 32), 8.0)).video.mean((0, 1, 2)) for row in rows]
    for scene, row in enumerate(rows):
        frames = choose(row, [Bucket(frames, 18, 32) for frames in range(1, 150)], 30.0, 1.0).frames
        video = reader.read(window_of(row, Source("s", path), Bucket(frames, 18, 32), 30.0)).video
        for picture in video:
            apart = [np.abs(picture.mean((0, 1)) - mean).sum() for mean in means]
            assert int(np.argmin(apart)) == scene


def test_a_frame_that_is_shown_for_long_fills_its_time(tmp_path):
    path = write_video(
        tmp_path / "a.mkv", moving_square(3), container="matroska", pts=[0, 100, 1000], time_base=Fraction(1, 1000)
    )
    window = Window("c", str(path), None, 0, 1100, Fraction(1, 1000), 0.0, 10.0, 11, None, 64, 96)
    pixels = UriReader().read(window)
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
    window = window_of(row, Source("s", str(path), bytes=path.stat().st_size), bucket, 16.0)
    pixels = UriReader().read(window)
    with open_source(str(path)) as file:
        (frame,) = ImageReader(file)
    assert pixels.pts == [0] and pixels.crop == (16, 0, 64, 64)
    assert np.array_equal(pixels.video[0], frame.cropped(pixels.crop, (32, 32)))
    with pytest.raises(SourceError, match="a still image has one frame, not 17"):
        UriReader().read(replace(window, frames=17, fps=100.0))


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_open_groups.mkv", "vp9.webm", "mpeg4.mp4", "hevc.mp4"])
def test_only_what_a_window_needs_is_decoded(films, name):
    reader = UriReader()
    row = spans(films / name, 0, 70, 80)[1]
    reader.read(window_of(row, Source("s", str(films / name)), Bucket(5, 32, 32), 12.0, "start"))
    assert reader.decoded <= 10 + 3 * GROUP < COUNT / 1.5


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "one_group.mp4", "uneven.mkv", "mpeg4.avi"])
def test_windows_of_one_source_in_a_row_decode_it_once(films, name):
    reader = UriReader()
    for window in windows_of(films / name, clips=8, bucket="3x32x32", fps=10.0):
        reader.read(window)
    assert reader.decoded <= COUNT + 2 * GROUP


@settings(max_examples=8, deadline=None)
@given(share=st.floats(0.05, 0.98))
def test_a_file_that_is_cut_off_gives_the_windows_before_its_end(films, tmp_path_factory, share):
    whole = tmp_path_factory.getbasetemp() / "whole_windows.mp4"
    if not whole.exists():
        write_video(whole, textured(), index_first=True, options=B_FRAMES)
    cut = whole.with_name("cut_windows.mp4")
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    reader, failed = UriReader(), False
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
