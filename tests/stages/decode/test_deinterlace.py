"""Interlaced frames lose their combing, one for one; progressive ones are never touched."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice

import av
import cv2
import numpy as np
import pytest

from stages.decode.deinterlace import Deinterlacer
from stages.decode.pyav_reader import PyAVReader
from stages.decode.rendering import Rendering
from stages.decode.seek_reader import SeekReader
from stages.decode.sources import open_source
from tests.hostile import write_video
from tests.stages.decode.test_seek import textured

GROUP = 12
OFF = Rendering(deinterlace="off")
FIELDS = {"flags": "+ildct+ilme"}
FILMS = {
    "mpeg2.mpg": {"codec": "mpeg2video", "container": "mpeg", "options": FIELDS | {"b": "8M", "g": str(GROUP)}},
    "mpeg2.ts": {
        "codec": "mpeg2video", "container": "mpegts", "options": FIELDS | {"b": "8M", "g": str(GROUP), "bf": "2"},
    },
    "h264.mp4": {"options": {"g": str(GROUP), "bf": "2", "crf": "10", "x264-params": "tff=1", "preset": "veryfast"}},
    "h264_open_groups.mkv": {
        "container": "matroska",
        "options": {"g": str(GROUP), "bf": "2", "crf": "10", "x264-params": "bff=1:open-gop=1", "preset": "veryfast"},
    },
    "ffv1_by_its_container.mkv": {"codec": "ffv1", "container": "matroska", "options": {"field_order": "tt"}},
    "prores.mov": {"codec": "prores_ks", "container": "mov", "pixel_format": "yuv422p10le", "options": FIELDS},
}  # fmt: skip


def woven(frames):
    """Frames of two: the even lines of one, the odd lines of the next."""
    frames = iter(frames)
    for one, two in zip(frames, frames, strict=False):
        both = one.copy()
        both[1::2] = two[1::2]
        yield both


def write(path, **how):
    return write_video(path, woven(textured(128)), fps=25, **how)


def read(path, rendering=None):
    """(reader, [(PTS, luma)]) of a whole decode."""
    with open_source(str(path)) as file:
        reader = PyAVReader(file, rendering=rendering or Rendering())
        return reader, [(frame.pts, frame.gray(96)) for frame in reader]


def combing(gray):
    """How much more a line differs from its neighbours than from the lines next to those."""
    gray = gray.astype(float)
    return np.abs(gray[1:-2] - gray[2:-1]).mean() / np.abs(gray[:-2] - gray[2:]).mean()


@pytest.mark.parametrize("name", FILMS)
def test_combing_is_gone_and_count_and_times_stay(tmp_path, name):
    path = write(tmp_path / name, **FILMS[name])
    reader, frames = read(path)
    _, left = read(path, OFF)
    assert len(frames) == 64 and [pts for pts, _ in frames] == [pts for pts, _ in left]
    assert reader.has_interlaced and reader.field_order in ("tt", "bb", "tb", "bt")
    _, smooth = read(write_video(tmp_path / "p.mp4", islice(textured(128), 0, 128, 2), options={"crf": "10"}))
    for (_, gray), (_, combed), (_, progressive) in zip(frames[1:], left[1:], smooth[1:], strict=True):
        assert combing(combed) > combing(progressive) + 0.3
        assert abs(combing(gray) - combing(progressive)) < 0.02
        kept = [np.abs(gray[k::2].astype(int) - combed[k::2]).max() for k in (0, 1)]
        assert min(kept) <= 1 < max(kept)  # one field stays as it is
    sharpness = [np.median([cv2.Laplacian(gray, cv2.CV_16S).var() for _, gray in film]) for film in (frames, smooth)]
    assert 0.5 < sharpness[0] / sharpness[1] < 1.5


@pytest.mark.parametrize("name", FILMS)
def test_a_seek_gives_the_picture_of_the_pass_whatever_its_neighbours(tmp_path, name):
    path = write(tmp_path / name, **FILMS[name])
    _, frames = read(path)
    order = [40, 12, 24, 11, 23, 25, 0, 47, 36, 1, 13, 63, 62, 48, 60]  # key frames among them, and both ends
    for places in (order, range(0, 64, 5), range(63, -1, -7)):
        with open_source(str(path)) as file:
            seeker = SeekReader(file)
            for k in places:
                frame = seeker.frame_at(frames[k][0], 0, 10**12)
                assert (frame.pts, k) == (frames[k][0], k)
                assert np.array_equal(frame.gray(96), frames[k][1])


def parts(path, *kinds):
    """An MPEG-2 film of parts of 24 frames, each progressive ('p') or interlaced ('i'); a group is 12 frames."""
    with av.open(str(path), "w") as out:
        stream, count, pictures = None, 0, textured(24 * len(kinds) * 2)
        for kind in kinds:
            options = {"b": "8M", "g": "12"} | (FIELDS if kind == "i" else {})
            made = woven(islice(pictures, 48)) if kind == "i" else list(islice(pictures, 48))[::2]
            context = av.CodecContext.create("mpeg2video", "w")
            context.width, context.height, context.pix_fmt, context.options = 96, 64, "yuv420p", options
            context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
            packets = []
            for number, picture in enumerate(made):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
                frame.pts = number
                packets += context.encode(frame)
            packets += context.encode(None)
            if stream is None:
                stream = out.add_stream("mpeg2video", rate=25)
                stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for packet in packets:
                packet.stream, packet.time_base, packet.pts = stream, Fraction(1, 25), count
                packet.dts, count = count, count + 1
                out.mux(packet)
    return path


@pytest.mark.parametrize("kinds", ["pip", "ipi", "ppi", "iip"])
def test_a_film_of_both_kinds_loses_the_combing_and_nothing_else(tmp_path, kinds):
    path = parts(tmp_path / "mixed.mkv", *kinds)
    reader, frames = read(path)
    _, left = read(path, OFF)
    assert reader.field_order == "mixed" and len(frames) == len(left) == 72
    for k, ((pts, gray), (same, stored)) in enumerate(zip(frames, left, strict=True)):
        assert pts == same
        if kinds[k // 24] == "p":
            assert np.array_equal(gray, stored)
        elif k:
            assert combing(gray) < 0.6 and combing(stored) > 0.8
    with open_source(str(path)) as file:
        seeker = SeekReader(file)
        for k in (24, 48, 23, 25, 12, 36, 47, 49, 60, 71, 0, 24, 48):
            assert np.array_equal(seeker.frame_at(frames[k][0], 0, 10**12).gray(96), frames[k][1]), k


def decoded(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_frames_that_are_marked_progressive_pass_as_they_are_whatever_the_stream_says(tmp_path):
    """Progressive film in an interlaced stream, as broadcasters send it."""
    path = write_video(tmp_path / "psf.mkv", textured(24), container="matroska", options={"field_order": "tt"})
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.field_order == 2
    frames = decoded(path)
    deinterlacer = Deinterlacer("h264", 2, wanted=True)
    for before, after in zip(frames, deinterlacer.frames(frames), strict=True):
        assert after is before
    assert deinterlacer.field_order == "progressive"


@pytest.mark.parametrize("order", [0, 1])
def test_a_progressive_film_is_passed_on_frame_by_frame_without_delay(tmp_path, order):
    frames = decoded(write_video(tmp_path / "film.mp4", textured(12)))
    taken = 0

    def counted():
        nonlocal taken
        for frame in frames:
            taken += 1
            yield frame

    for k, frame in enumerate(Deinterlacer("h264", order, wanted=True).frames(counted())):
        assert frame is frames[k] and taken == k + 1


@pytest.mark.parametrize("size", [(2, 64), (96, 2)])
def test_a_picture_too_small_for_the_filter_stays_as_it_is(size):
    frames = [np.full((size[1], size[0], 3), 9 * k, np.uint8) for k in range(12)]
    frames = [av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format="yuv420p") for frame in frames]
    assert list(Deinterlacer("ffv1", 2, wanted=True).frames(frames)) == frames


def test_a_film_of_one_interlaced_frame_has_one(tmp_path):
    path = write_video(tmp_path / "one.mpg", [next(woven(textured(2)))], **FILMS["mpeg2.mpg"])
    reader, frames = read(path)
    assert len(frames) == 1 and reader.has_interlaced
