"""Pixels as displayed: one picture, whatever format, range, matrix, turn or sample aspect it is stored in."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.decode.display import Display, check_size
from stages.decode.planes import resized
from stages.decode.pyav_reader import PyAVReader
from stages.decode.scaler import Scaler
from stages.decode.sources import open_source
from stages.decode.video_frame import VideoFrame
from stages.frames import SourceError
from tests.hostile import write_video

LIMITED, FULL = 1, 2
BT709, BT601, BT2020 = 1, 5, 9
FORMATS = [
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuv440p",
    "yuv411p",
    "nv12",
    "nv21",
    "yuv420p10le",
    "yuv444p12le",
]
FORMATS += ["p010le", "yuva420p", "yuyv422", "uyvy422", "yuv422p10be", "rgb24", "bgra", "gbrp", "rgb48le"]
RGB = ("rgb", "bgr", "gbr")


def patches(width: int = 160, height: int = 96) -> np.ndarray:
    """(h, w, 3) RGB: eight patches of plain colour, each wide enough to be measured in its middle."""
    colours = [(200, 30, 30), (30, 200, 40), (40, 50, 210), (230, 220, 50),
               (20, 20, 20), (240, 240, 240), (128, 128, 128), (90, 40, 160)]  # fmt: skip
    image = np.zeros((height, width, 3), np.uint8)
    for i, colour in enumerate(colours):
        row, column = divmod(i, 4)
        image[row * height // 2 : (row + 1) * height // 2, column * width // 4 : (column + 1) * width // 4] = colour
    return image


def centres(image: np.ndarray) -> np.ndarray:
    """(8, 3) or (8,): the patches' middles."""
    height, width = image.shape[:2]
    return np.array([image[(2 * r + 1) * height // 4, (2 * c + 1) * width // 8] for r in (0, 1) for c in range(4)], int)


def stored(rgb: np.ndarray, name: str, matrix: int = BT601, color_range: int = LIMITED) -> av.VideoFrame:
    """The RGB picture in that pixel format, tagged with the matrix and range it was made with."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
    made = VideoReformatter().reformat(
        frame, format=name, dst_colorspace=matrix, dst_color_range=color_range, src_color_range=FULL
    )
    made.colorspace, made.color_range = (0, FULL) if name.startswith(RGB) else (matrix, color_range)
    return made


def shown(
    frame: av.VideoFrame, aspect: Fraction = Fraction(1), rotation: int = 0, mirrored: bool = False
) -> VideoFrame:
    display = Display.of(frame.width, frame.height, aspect, rotation, mirrored)
    return VideoFrame(frame, 0, 0.0, display, Scaler())


def full_luma(frame: VideoFrame) -> np.ndarray:
    """(h, w) luma at the size that frames without a sample aspect have."""
    luma = frame.gray(max(map(len, frame.luma_means())))
    assert luma.shape == tuple(map(len, frame.luma_means()))
    return luma


@pytest.mark.parametrize("name", FORMATS)
def test_every_pixel_format_shows_the_same_colours(name):
    rgb = patches()
    frame = shown(stored(rgb, name))
    expected = centres(rgb)[:, ::-1]
    for image in (frame.small, frame.picture(480), frame.picture(64)):
        assert np.abs(centres(image) - expected).max() <= 6, name
    luma = expected @ [0.114, 0.587, 0.299]
    assert np.abs(centres(full_luma(frame)) - luma).max() <= 3
    assert np.abs(centres(frame.gray(64)) - luma).max() <= 3
    rows, columns = frame.luma_means()
    assert np.abs(rows[[20, 70]] - luma.reshape(2, 4).mean(axis=1)).max() <= 3
    assert np.abs(columns[20::40] - luma.reshape(2, 4).mean(axis=0)).max() <= 3


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
@pytest.mark.parametrize("name", ["yuv420p", "yuv444p10le", "nv12", "yuyv422"])
def test_range_and_matrix_are_honoured(name, matrix, color_range):
    rgb = patches()
    frame = shown(stored(rgb, name, matrix, color_range))
    assert np.abs(centres(frame.small) - centres(rgb)[:, ::-1]).max() <= 6
    grays = centres(full_luma(frame))[4:7]  # of the gray patches every matrix makes the same luma
    assert np.abs(grays - [20, 240, 128]).max() <= 2
    assert np.abs(np.mean(frame.luma_means()[0]) - full_luma(frame).mean()) <= 0.5


def test_a_wrong_range_or_matrix_would_be_seen():
    """The tolerances above can fail: the same planes under another tag are far off."""
    rgb = patches()
    frame = stored(rgb, "yuv420p", BT709, LIMITED)
    for matrix, color_range in ((BT601, LIMITED), (BT709, FULL)):
        frame.colorspace, frame.color_range = matrix, color_range
        assert np.abs(centres(shown(frame).small) - centres(rgb)[:, ::-1]).max() > 10


@pytest.mark.parametrize(("matrix", "color_range"), [(BT709, FULL), (BT709, LIMITED), (6, FULL), (6, LIMITED)])
def test_the_tags_of_a_real_file_arrive(tmp_path, matrix, color_range):
    frame = stored(patches(), "yuv444p", 5 if matrix == 6 else matrix, color_range)
    path = write_video(
        tmp_path / "v.mp4", [frame], pixel_format="yuv444p", color_range=color_range, matrix=matrix,
        options={"crf": "1"},
    )  # fmt: skip
    with open_source(str(path)) as file:
        read = next(iter(PyAVReader(file)))
        assert np.abs(centres(read.picture(160)) - centres(patches())[:, ::-1]).max() <= 6


@pytest.mark.parametrize("gray", ["gray", "gray10le", "monob", "pal8"])
def test_gray_and_paletted_frames_are_taken(gray):
    ramp = np.broadcast_to(np.linspace(0, 255, 96).astype(np.uint8)[:, None, None], (96, 64, 3))
    if gray == "pal8":
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp), "rgb24").reformat(format="rgb8")
    else:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp), "rgb24").reformat(
            format=gray, src_color_range=FULL, dst_color_range=FULL
        )
    small, luma = shown(frame).small, full_luma(shown(frame))
    assert small.shape == (96, 64, 3) and luma.shape == (96, 64)
    assert luma[:10].mean() < 25 and luma[-10:].mean() > 220 and abs(luma.mean() - small.mean()) < 4


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 300),
    name=st.sampled_from(["yuv420p", "nv12", "yuv420p10le"]),
)
def test_any_size_is_shown_without_its_line_padding(width, height, name):
    """A left-right ramp of gray: padding, a wrong stride or a lost line would bend it."""
    ramp = np.linspace(20, 235, width)[None].repeat(height, 0).astype(np.uint8)
    frame = av.VideoFrame(width, height, name)
    bits = 2 if name.endswith("10le") else 0
    for i, plane in enumerate(frame.planes):
        wide = np.frombuffer(plane, np.uint16 if bits else np.uint8).reshape(plane.height, -1)
        wide[:] = 7 << bits  # what padding holds
        if i == 0:
            wide[:, :width] = ramp.astype(wide.dtype) << bits
        else:
            wide[:, : plane.width * (2 if name == "nv12" else 1)] = 128 << bits
    frame.color_range = FULL
    frame.colorspace = BT601
    one = shown(frame)
    small = one.small
    assert max(small.shape[:2]) == min(128, max(width, height))
    assert np.ptp(small.astype(int), axis=2).max() <= 2  # gray
    rows, columns = one.luma_means()
    assert np.abs(columns - ramp[0]).max() <= 0.01 and np.abs(rows - ramp.mean()).max() <= 0.01
    assert np.abs(one.gray(max(width, height)).astype(int) - ramp).max() <= 1
    expected = cv2.resize(ramp, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small[..., 0].astype(int) - expected).max() <= 6
    assert max(one.picture(480).shape) == 480


def test_the_fast_resize_is_near_the_exact_area_average():
    scene = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 255, (1080, 1920), dtype=np.uint8), (0, 0), 6)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    exact = cv2.resize(scene, (128, 72), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(resized(scene, (128, 72)) - exact).mean() < 3
    assert np.abs(resized(scene, (128, 72), within=4) - exact).mean() < 5  # chroma


def test_gray_is_the_exact_area_average():
    rng = np.random.default_rng(3)
    luma = cv2.GaussianBlur(rng.integers(0, 255, (480, 854), dtype=np.uint8), (0, 0), 1)
    frame = av.VideoFrame.from_ndarray(luma, "gray").reformat(format="yuv420p", dst_color_range=FULL)
    frame.color_range = FULL
    plane = np.frombuffer(frame.planes[0], np.uint8).reshape(480, -1)[:, :854]
    exact = cv2.resize(plane, (480, 270), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(shown(frame).gray(480) - exact).mean() < 0.5


# Turns and aspect


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])  # counter-clockwise, as PyAV writes them
def test_the_display_matrix_is_honoured(tmp_path, degrees, mirrored):
    rgb = patches()
    path = write_video(tmp_path / "v.mp4", [rgb], rotation=degrees, mirrored=mirrored, options={"crf": "5"})
    turned = np.rot90(rgb, degrees // 90)
    expected = turned[:, ::-1] if mirrored else turned
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        frame = next(iter(reader))
    assert (reader.info.height, reader.info.width) == expected.shape[:2]
    assert np.abs(frame.picture(160).astype(int) - expected[..., ::-1]).mean() < 6
    gray = cv2.cvtColor(np.ascontiguousarray(expected), cv2.COLOR_RGB2GRAY)
    assert np.abs(frame.gray(160).astype(int) - gray).mean() < 6
    for means, axis in zip(frame.luma_means(), (1, 0), strict=True):
        assert np.abs(means - gray.mean(axis=axis)).mean() < 6


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (320, 96)), (Fraction(1, 2), (80, 96))])
def test_the_sample_aspect_is_squared(tmp_path, aspect, size):
    path = write_video(tmp_path / "v.mp4", [patches()] * 2, aspect=aspect)
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        frame = next(iter(reader))
    assert (reader.info.width, reader.info.height) == size
    assert reader.info.sample_aspect_ratio == aspect
    assert frame.small.shape[1] / frame.small.shape[0] == pytest.approx(size[0] / size[1], rel=0.03)
    assert tuple(map(len, frame.luma_means())) == (96, 160)  # before squaring


def test_an_absurd_aspect_is_taken_for_unstated(tmp_path):
    path = write_video(tmp_path / "v.mp4", [patches()], aspect=Fraction(4000, 1))
    with open_source(str(path)) as file:
        assert PyAVReader(file).info.width == 160


@pytest.mark.parametrize("size", [(16385, 2), (2, 16385), (16384, 16384), (0, 5)])
def test_absurd_sizes_are_refused(size):
    with pytest.raises(SourceError):
        check_size(*size)


def test_what_is_kept_of_a_frame_is_a_copy():
    frame = stored(patches(64, 48), "rgb24")
    one = shown(frame)
    kept, picture, luma, means = one.small, one.picture(64), one.gray(64), one.luma_means()
    assert one.small is kept  # cached
    taken = [kept, picture, luma, *means]
    before = [values.copy() for values in taken]
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 0
    one.picture(64)[:] = 0
    assert all(np.array_equal(after, values) for after, values in zip(taken, before, strict=True))
