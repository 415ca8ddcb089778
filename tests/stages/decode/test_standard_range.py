"""What is neither HDR nor interlaced is shown as it always was, bit for bit; gray goes from 0 to 255."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from stages.decode.pyav_reader import PyAVReader
from stages.decode.rendering import Rendering
from stages.decode.sources import open_source
from stages.decode.video_frame import VideoFrame
from tests.hostile import write_video
from tests.stages.decode.hdr_films import scene, sdr_frame, write_hdr
from tests.stages.decode.test_seek import textured

LIMITED, FULL = 1, 2
FILMS = {
    "h264.mp4": {},
    "h264_444.mp4": {"pixel_format": "yuv444p", "matrix": 1, "color_range": LIMITED},
    "hevc.mkv": {"codec": "libx265", "container": "matroska", "options": {"x265-params": "log-level=none"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p", "container": "avi"},
    "vp9.webm": {"codec": "libvpx-vp9", "container": "webm", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "container": "mpeg", "fps": 25},
}


def plain(frame: av.VideoFrame) -> tuple[np.ndarray, np.ndarray]:
    """(h, w, 3) BGR and the small picture (h, w, 3) of a frame of 96 x 64, straight from its planes."""
    bits = frame.format.components[0].bits
    kind = np.uint8 if bits == 8 else np.uint16
    planes = [np.frombuffer(p, kind).reshape(p.height, -1)[:, : p.width] for p in frame.planes]
    kr, kb = (0.2126, 0.0722) if frame.colorspace == 1 else (0.299, 0.114)
    kg = 1 - kr - kb
    full = frame.color_range == FULL
    luma, colour, black = (1, 1, 0) if full else (255 / 219, 255 / 224, 16)
    weights = np.array(
        [[luma, 2 * (1 - kb) * colour, 0],
         [luma, -2 * (1 - kb) * kb / kg * colour, -2 * (1 - kr) * kr / kg * colour],
         [luma, 0, 2 * (1 - kr) * colour]])  # fmt: skip
    matrix = np.column_stack([weights, -weights @ [black, 128, 128]]).astype(np.float32)

    def shown(interpolation):
        parts = [cv2.resize(p, (96, 64), interpolation=interpolation) if p.shape != (64, 96) else p for p in planes]
        image = cv2.merge(parts)
        if bits > 8:
            image = cv2.convertScaleAbs(image, alpha=2.0 ** (8 - bits))
        return cv2.transform(image, matrix)

    return shown(cv2.INTER_CUBIC), shown(cv2.INTER_LINEAR)


@pytest.mark.parametrize("name", FILMS)
def test_progressive_sdr_is_shown_bit_for_bit_as_its_planes_say(tmp_path, name):
    path = write_video(tmp_path / name, textured(12), **FILMS[name])
    check(path, 12)


def test_ten_bits_of_sdr_are_too(tmp_path):
    check(write_hdr(tmp_path / "sdr.mp4", [sdr_frame(scene(k, 96, 64)) for k in range(6)]), 6)


def check(path, count):
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == count
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        for frame, one in zip(frames, reader, strict=True):
            crop, small = plain(frame)
            assert type(one) is VideoFrame
            assert np.array_equal(one.cropped((0, 0, 96, 64), (96, 64))[..., ::-1], crop)
            assert np.array_equal(one.small, small)
            if "444" not in frame.format.name:  # of which pictures keep half the colour
                assert np.array_equal(one.picture(96), small)
        assert not reader.has_interlaced and reader.field_order == "progressive"
        assert not reader.info.hdr


@pytest.mark.parametrize("hdr", ["tone_map", "clip", "leave"])
@pytest.mark.parametrize("deinterlace", ["auto", "off"])
def test_no_setting_changes_them(tmp_path, hdr, deinterlace):
    path = write_video(tmp_path / "film.mp4", textured(6))
    pictures = []
    for rendering in (Rendering(), Rendering(hdr, deinterlace)):
        with open_source(str(path)) as file:
            pictures.append(np.stack([frame.picture(96) for frame in PyAVReader(file, rendering=rendering)]))
    assert np.array_equal(*pictures)


def gray_frames(name, black, white):
    """Frames of the left half black, the right half white."""
    for _ in range(3):
        frame = av.VideoFrame(96, 64, name)
        kind = np.uint8 if name == "gray" else np.uint16
        lines = np.zeros((64, frame.planes[0].line_size // np.dtype(kind).itemsize), kind)
        lines[:, :48], lines[:, 48:96] = black, white
        frame.planes[0].update(lines.tobytes())
        yield frame


@pytest.mark.parametrize(
    ("name", "codec", "color_range", "black", "white"),
    [
        ("gray", "libx265", LIMITED, 16, 235),
        ("gray", "libx265", None, 16, 235),  # unstated: HEVC means limited
        ("gray", "libx265", FULL, 0, 255),
        ("gray10le", "libx265", LIMITED, 64, 940),
        ("gray12le", "libx265", LIMITED, 256, 3760),
        ("gray12le", "libx265", FULL, 0, 4095),
        ("gray", "libx264", LIMITED, 16, 235),
        ("gray10le", "libx264", LIMITED, 64, 940),
        ("gray", "ffv1", None, 0, 255),  # unstated: of pictures it means full
        ("gray", "ffv1", LIMITED, 16, 235),
        ("gray10le", "ffv1", LIMITED, 64, 940),
    ],
)
def test_black_and_white_of_gray_are_0_and_255_in_every_picture(tmp_path, name, codec, color_range, black, white):
    options = {"x265-params": "log-level=none:lossless=1"} if codec == "libx265" else {"qp": "0"}
    path = write_video(
        tmp_path / "gray.mkv", gray_frames(name, black, white), codec=codec, pixel_format=name,
        container="matroska", color_range=color_range, options=options if codec != "ffv1" else {},
    )  # fmt: skip
    with open_source(str(path)) as file:
        frame = next(iter(PyAVReader(file)))
        crop = frame.cropped((0, 0, 96, 64), (96, 64))
        half = frame.cropped((0, 0, 96, 64), (48, 32))
        pictures = (frame.small, frame.picture(96), frame.picture(480), frame.gray(96), frame.gray(480), crop, half)
        for picture in pictures:
            width = picture.shape[1]
            assert picture[:, : width * 2 // 5].max() <= 1 and picture[:, width * 3 // 5 :].min() >= 254
        rows, columns = frame.luma_means()
        assert columns[:40].max() <= 1 and columns[56:].min() >= 254 and np.abs(rows - 127.5).max() <= 2
