"""High dynamic range becomes standard range by one operator, in every picture that is made of a frame."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from stages.decode.display import Display
from stages.decode.hdr_frame import HdrFrame, displayable
from stages.decode.pyav_reader import PyAVReader
from stages.decode.rendering import Rendering
from stages.decode.scaler import Scaler
from stages.decode.seek_reader import SeekReader
from stages.decode.sources import open_source
from stages.decode.video_frame import VideoFrame
from tests.stages.decode.hdr_films import (
    BT709,
    BT2020,
    FULL,
    HLG,
    LIMITED,
    PQ,
    hlg_frame,
    pq_frame,
    scene,
    sdr_frame,
    shown_in_sdr,
    stored,
    write_hdr,
)

BT709_LUMA = [0.2126, 0.7152, 0.0722]
MAKERS = {"pq": pq_frame, "hlg": hlg_frame}


def displayed(frame: av.VideoFrame, hdr: str = "tone_map", rotation: int = 0) -> VideoFrame:
    display = Display.of(frame.width, frame.height, Fraction(1), rotation, False)
    return displayable(frame, 0, 1.0, display, Scaler(), hdr)


def whole(frame: VideoFrame, width: int = 192, height: int = 112) -> np.ndarray:
    """(h, w, 3) RGB: every pixel."""
    return frame.cropped((0, 0, width, height), (width, height)).astype(float)


def anything(transfer, name, color_range=LIMITED, seed=0):
    """A frame whose pixels take every value there is, in and out of range and gamut, in soft shapes."""
    rng = np.random.default_rng(seed)
    soft = [cv2.GaussianBlur(rng.standard_normal((112, 192)), (0, 0), 2) for _ in range(3)]
    rgb = np.stack([cv2.normalize(part, None, -0.1, 1.1, cv2.NORM_MINMAX) for part in soft], -1)
    return stored(rgb, name, transfer=transfer, color_range=color_range)


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "yuv444p10le", "yuv422p12le", "yuv444p12le"])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_every_pixel_is_what_the_standards_say(transfer, name, color_range):
    frame = anything(transfer, name, color_range)
    expected, one = shown_in_sdr(frame), displayed(frame)
    assert np.ptp(expected) > 250
    assert np.abs(whole(one) - expected).max() <= 2
    assert np.abs(one.picture(192)[..., ::-1] - expected).max() <= 2
    luma = expected @ BT709_LUMA
    assert np.abs(one.gray(192) - luma).max() <= 2
    for means, axis in zip(one.luma_means(), (1, 0), strict=True):
        assert np.abs(means - luma.mean(axis)).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("kind", MAKERS)
def test_saturated_colours_at_the_edge_of_the_gamut_are_right_too(kind, bits):
    light = np.zeros((112, 192, 3))
    light[:] = np.linspace(0, 4, 192)[:, None]
    for k in range(6):  # red, green, blue and their mixtures
        light[16 * k : 16 * k + 16] *= [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]][k]
    frame = MAKERS[kind](light, f"yuv444p{bits}le" if bits > 8 else "yuv444p")
    assert np.abs(whole(displayed(frame)) - shown_in_sdr(frame)).max() <= 2


@pytest.mark.parametrize("steps", ["even in nits", "even in PQ"])
def test_a_ramp_to_1000_nits_stays_monotone_and_is_not_clipped(steps):
    nits = np.linspace(0, 1000, 4096) if steps == "even in nits" else np.linspace(0, 1000 ** (1 / 4), 4096) ** 4
    light = np.broadcast_to((nits / 203).reshape(1, -1, 1), (16, 4096, 3))
    row = whole(displayed(pq_frame(light, "yuv444p12le")), 4096, 16)[8]
    assert np.diff(row, axis=0).min() >= 0
    assert np.mean(row.max(axis=1) == 255) < 0.01
    assert row[0].max() == 0 and row[-1].min() > 245
    assert np.ptp(row[nits > 203].mean(1)) > 12  # highlights keep their order
    cut_off = whole(displayed(pq_frame(light, "yuv444p12le"), "clip"), 4096, 16)[8]
    assert np.mean(cut_off.max(axis=1) == 255) > 0.2


def test_up_to_142_nits_the_light_is_what_a_screen_for_sdr_shows():
    light = np.broadcast_to(np.linspace(0, 0.69, 192).reshape(1, -1, 1), (112, 192, 3))
    row = whole(displayed(pq_frame(light, "yuv444p12le")))[50]
    assert np.abs(row - 255 * light[0] ** (1 / 2.4)).max() <= 1


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_scene_has_about_the_luma_and_contrast_that_it_has_in_sdr(kind):
    """42 became 14 where PQ was taken for SDR."""
    grays = {
        name: displayed(maker(scene(7))).gray(192).astype(float)
        for name, maker in (MAKERS | {"sdr": sdr_frame}).items()
    }
    assert abs(grays[kind].mean() - grays["sdr"].mean()) < 10
    assert abs(grays[kind].std() - grays["sdr"].std()) < 0.15 * grays["sdr"].std()
    left = displayed(MAKERS[kind](scene(7)), "leave").gray(192)
    assert abs(left.std() - grays["sdr"].std()) > 0.3 * grays["sdr"].std()


@pytest.mark.parametrize("size", [(192, 112), pytest.param((1920, 1080), marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", MAKERS)
def test_pictures_of_every_size_and_kind_show_the_same(kind, size):
    soft = cv2.GaussianBlur(scene(3, *size), (0, 0), size[0] / 60)
    one = displayed(MAKERS[kind](soft))
    crop = one.cropped((0, 0, *size), (96, 56)).astype(float)
    for picture in (one.small, one.picture(96), one.picture(320), one.kept(480).made()):
        apart = np.abs(cv2.resize(picture, (96, 56), interpolation=cv2.INTER_AREA)[..., ::-1] - crop)
        assert apart.mean() < 1.5 and np.percentile(apart, 99) <= 4
    luma = crop @ BT709_LUMA
    assert np.abs(cv2.resize(one.gray(480), (96, 56), interpolation=cv2.INTER_AREA) - luma).mean() < 1
    rows, columns = one.luma_means()
    assert (len(columns), len(rows)) == size
    assert abs(rows.mean() - luma.mean()) < 1 and abs(columns.mean() - luma.mean()) < 1


@pytest.mark.parametrize("name", ["p010le", "yuv420p10be", "gbrp12le", "yuv444p16le", "yuva444p12le", "gbrp10le"])
def test_every_pixel_format_shows_the_same(name):
    light = cv2.GaussianBlur(scene(3), (0, 0), 8)
    frame = pq_frame(light, "yuv444p12le")
    expected = shown_in_sdr(frame)
    is_rgb = name.startswith("gbr")
    other = frame.reformat(
        format=name, src_colorspace=BT2020, dst_colorspace=BT2020, src_color_range=LIMITED,
        dst_color_range=FULL if is_rgb else LIMITED,
    )  # fmt: skip
    other.color_trc, other.color_primaries = PQ, BT2020
    other.colorspace, other.color_range = (0, FULL) if is_rgb else (BT2020, LIMITED)
    assert np.abs(whole(displayed(other)) - expected).mean() <= 1
    assert np.abs(whole(displayed(other)) - expected).max() <= 4  # of the conversion to that format, too


def test_an_unstated_matrix_and_primaries_of_hdr_are_those_of_bt_2020():
    frame = pq_frame(scene(1))
    expected = whole(displayed(frame))
    frame.colorspace = frame.color_primaries = 2
    assert np.array_equal(whole(displayed(frame)), expected)


def test_other_primaries_are_converted_from():
    light = scene(1)
    plain = stored(np.clip(light, 0, 0.6) ** (1 / 2.4), "yuv444p10le", transfer=PQ, matrix=BT709, primaries=BT709)
    assert isinstance(displayed(plain), HdrFrame)
    red = np.zeros((112, 192, 3))
    red[..., 0] = 0.5
    frame = stored(red, "yuv444p10le", transfer=PQ, matrix=BT709, primaries=BT709)
    assert whole(displayed(frame))[..., 1:].max() <= 12 < whole(displayed(frame))[..., 0].min()  # BT.709 red stays it


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_turned_pictures_are_turned_alike(rotation):
    frame = pq_frame(scene(5))
    upright, turned = displayed(frame), displayed(frame, rotation=rotation)
    expected = np.rot90(upright.picture(192), -rotation // 90)
    assert np.array_equal(turned.picture(192), expected)
    rows, columns = turned.luma_means()
    gray = np.rot90(upright.gray(192), -rotation // 90)
    assert np.abs(rows - gray.mean(1)).max() < 1 and np.abs(columns - gray.mean(0)).max() < 1


def test_what_is_kept_of_a_frame_is_a_copy():
    frame = pq_frame(scene(5))
    one = displayed(frame)
    kept = one.kept(192)
    before = [one.small.copy(), kept.made()]
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 0
    assert np.array_equal(one.small, before[0]) and np.array_equal(kept.made(), before[1])


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_is_shown_so_and_says_what_it_is(tmp_path, kind, bits):
    name = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
    soft = cv2.GaussianBlur(scene(2), (0, 0), 2)
    path = write_hdr(tmp_path / "film.mp4", [MAKERS[kind](soft, name)] * 3)
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        found = whole(next(iter(reader)))
        info = reader.info
    with av.open(str(path)) as container:
        assert np.abs(found - shown_in_sdr(next(container.decode(video=0)))).max() <= 2
    assert info.hdr and info.bit_depth == bits
    assert info.color_transfer == {"pq": "smpte2084", "hlg": "arib-std-b67"}[kind]
    assert (info.color_primaries, info.color_matrix) == ("bt2020", "bt2020nc")


@pytest.mark.parametrize("hdr", ["tone_map", "clip", "leave"])
def test_a_seek_gives_the_picture_of_the_pass(tmp_path, hdr):
    path, rendering = write_hdr(tmp_path / "film.mkv", [pq_frame(scene(k)) for k in range(12)]), Rendering(hdr)
    with open_source(str(path)) as one, open_source(str(path)) as two:
        reader, seeker = PyAVReader(one, rendering=rendering), SeekReader(two, rendering=rendering)
        for frame in reader:
            other = seeker.frame_at(frame.pts, 0, 10**9)
            assert isinstance(frame, HdrFrame) == (hdr != "leave")
            assert np.array_equal(frame.picture(96), other.picture(96))
            assert np.array_equal(whole(frame), whole(other))
