"""Bytes, time stamps and images as read: hashes taken on the way, exact PTS, one frame of a still image."""

from __future__ import annotations

import os
import re
import struct
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import cv2
import fsspec
import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.decode.images import ImageReader
from stages.decode.pyav_reader import PyAVReader
from stages.decode.readers import open_reader
from stages.decode.reading import SafeFile
from stages.decode.seek_reader import SeekReader
from stages.decode.sources import open_source
from stages.decode.timeline import PacketSizes, Timeline, shortfall
from stages.frames import SourceError
from tests.hostile import moving_square, write_shuffled_times, write_video

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pts_of(path, backend="pyav"):
    with open_source(str(path)) as file:
        return [frame.pts for frame in open_reader(file, backend)]


def in_memory(data: bytes) -> SafeFile:
    return SafeFile(lambda position, length: data[position : position + length], len(data), lambda: None)


# Bytes


@given(
    size=st.integers(0, 3000),
    steps=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 1500)), max_size=12),
)
def test_the_hash_is_the_file_s_whatever_was_read_in_whatever_order(size, steps):
    data = np.random.default_rng(size).bytes(size)
    file = in_memory(data)
    for place, length in steps:
        file.seek(place)
        assert file.read(length) == data[place : place + length]
    assert file.content_hash() == xxhash.xxh3_128_hexdigest(data)


def test_bytes_read_in_order_are_hashed_on_the_way_and_not_read_again():
    file = in_memory(bytes(range(256)) * 40)
    while file.read(1000):
        pass
    assert file.bytes_read == file.size
    file.content_hash()
    assert file.bytes_read == file.size


def test_decoding_a_video_hashes_it_on_the_way(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_square(40))
    with open_source(f"file://{path}") as file:
        assert len(list(PyAVReader(file))) == 40
        assert file.content_hash() == xxhash.xxh3_128_hexdigest(path.read_bytes())
        assert file.bytes_read < 2.5 * path.stat().st_size


def test_a_store_s_object_reads_like_a_local_file(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_square(20))
    with fsspec.open("memory://films/a.mp4", "wb") as out:
        out.write(path.read_bytes())
    assert pts_of("memory://films/a.mp4") == pts_of(path)
    for missing in ("memory://films/none.mp4", "memory://films"):
        with pytest.raises(SourceError, match=r"can't be opened|not a file"):
            open_source(missing)


def test_a_failed_read_is_a_failure_and_never_a_short_film(tmp_path):
    data = write_video(tmp_path / "a.mp4", moving_square(200, 320, 240), index_first=True).read_bytes()

    def read_at(position, length):
        if position + length > len(data) // 2:
            raise OSError("connection reset")
        return data[position : position + min(length, 4096)]

    file = SafeFile(read_at, len(data), lambda: None)
    with pytest.raises(SourceError, match=r"reading failed at byte \d+: connection reset"):
        list(PyAVReader(file))


# Time


@quick
@given(steps=st.lists(st.integers(1, 1900), min_size=1, max_size=20), start=st.integers(0, 500))
def test_pts_of_a_variable_frame_rate_are_exact(tmp_path, steps, start):
    pts = list(np.cumsum([start, *steps]).tolist())
    for container in ("matroska", "mp4"):
        path = write_video(tmp_path / "v", moving_square(len(pts), 32, 32), container=container, pts=pts,
                           time_base=Fraction(1, 1000))  # fmt: skip
        with open_source(str(path)) as file:
            reader = PyAVReader(file)
            got = [(frame.pts * reader.info.time_base, frame.seconds) for frame in reader]
        assert [exact * 1000 for exact, _ in got] == pts
        assert all(abs(seconds - exact) < 1e-6 for exact, seconds in got)


def test_decord_gives_the_same_times_and_nearly_the_same_pixels(tmp_path):
    pytest.importorskip("decord")
    pts = [0, 40, 41, 500, 533, 1700]
    path = write_video(tmp_path / "v.mp4", moving_square(6, 128, 96), pts=pts, time_base=Fraction(1, 1000))
    assert pts_of(path, "decord") == pts_of(path)
    with open_source(str(path)) as one, open_source(str(path)) as two:
        a, b = open_reader(one), open_reader(two, "decord")
        assert a.info == b.info
        for ours, theirs in zip(a, b, strict=True):
            assert np.abs(ours.small.astype(int) - theirs.small).mean() < 3
        assert (a.packets_bytes(0, 10**9), a.truncated) == (b.packets_bytes(0, 10**9), b.truncated)


def test_frames_come_in_rising_pts_even_from_a_shuffled_file(tmp_path):
    path = write_shuffled_times(tmp_path / "s.mkv", [0, 2, 1, 5, 3, 4, 9, 8, 7, 6, 10, 11])
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        pts = [frame.pts for frame in reader]
    assert all(a < b for a, b in pairwise(pts))
    assert reader.frames + reader.left_out == 12 and "running backward" in reader.disordered


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_frames_of_a_raw_stream_are_counted_at_its_rate_and_found_again(tmp_path, codec):
    options = {"bf": "2", "preset": "medium", "x265-params": "log-level=none"}
    container = {"libx264": "h264", "libx265": "hevc"}[codec]
    path = write_video(tmp_path / "raw", moving_square(40), fps=30, codec=codec, container=container, options=options)
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        frames = [(frame.pts, frame.small.copy()) for frame in reader]
    assert (reader.info.fps, len(frames), reader.truncated) == (30.0, 40, None)
    assert [pts * reader.info.time_base for pts, _ in frames] == [Fraction(i, 30) for i in range(40)]
    assert reader.last_end_pts * reader.info.time_base == Fraction(4, 3)
    assert reader.packets_bytes(0, 10**9) == path.stat().st_size
    with open_source(str(path)) as file:
        seeking = SeekReader(file)
        for pts, small in (frames[31], frames[2], frames[39]):
            found = seeking.frame_at(pts, 0, 10**9)
            assert found.pts == pts
            assert np.array_equal(found.small, small)


@pytest.mark.parametrize(("container", "codec"), [("mpegts", "libx264"), ("mpeg", "mpeg2video")])
def test_takes_put_one_behind_the_other_are_refused_with_the_way_out(tmp_path, container, codec):
    path = write_video(tmp_path / "takes", moving_square(24), container=container, codec=codec)
    path.write_bytes(path.read_bytes() * 2)
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        assert all(a.pts < b.pts for a, b in pairwise(reader))
    assert re.match(
        r"time .* running backward: 2\d frames left out \(several takes .* ffmpeg -i FILE", reader.disordered
    )


stamps = st.lists(st.one_of(st.none(), st.integers(-50, 400), st.just(10**9)), max_size=40)


@given(stamps)
def test_any_time_stamps_leave_in_strictly_rising_order_and_none_is_lost_uncounted(times):
    frames = [(pts, SimpleNamespace(duration=0)) for pts in times]
    timeline = Timeline(leap=100)
    got = [pts for pts, _ in timeline.ordered(iter(frames))]
    assert all(a < b for a, b in pairwise(got))
    assert len(got) + timeline.left_out == len(times)


def test_one_stray_stamp_far_ahead_costs_itself_and_not_the_rest_of_the_film():
    times = [0, 10, 20, 10**9, 30, 40, 5000, 5010]  # the step to 5000 is a real gap
    frames = [(pts, SimpleNamespace(duration=0)) for pts in times]
    assert [pts for pts, _ in Timeline(leap=100).ordered(frames)] == [0, 10, 20, 30, 40, 5000, 5010]


def test_a_film_ends_after_its_last_frame_s_duration(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(30), fps=30)
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        last = [frame.pts for frame in reader][-1]
    assert (reader.last_end_pts - last) * reader.info.time_base == Fraction(1, 30)
    assert reader.last_end_pts * reader.info.time_base == 1


def test_packet_sizes_are_summed_by_time_and_forgotten(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(60), options={"bf": "2", "g": "12"})
    with av.open(str(path)) as plain:
        packets = [(p.pts, p.size) for p in plain.demux(video=0) if p.size]
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        middle = [frame.pts for frame in reader][25]
    first, rest = reader.packets_bytes(0, middle), reader.packets_bytes(middle, reader.last_end_pts)
    assert first == sum(size for pts, size in packets if 0 <= pts < middle)
    assert first + rest == sum(size for pts, size in packets if pts >= 0)
    assert reader.packets_bytes(0, 10**12) == 0


def test_packets_of_a_long_film_that_nobody_asks_for_stay_small():
    sizes = PacketSizes()
    for i in range(100_000):
        sizes.add(i, 1000)
    assert sizes.take(99_000, 99_500) == 500_000
    assert sizes.take(0, 10**9) == 500_000


@pytest.mark.parametrize(("decoded", "stated", "short"), [
    (30, 30, False), (29.2, 30, False), (28, 30, True), (7000, 7200, False), (6700, 7200, True),
    (1, 2, True), (0.04, 0.05, False), (5, None, False), (31, 30, False),
])  # fmt: skip
def test_what_counts_as_truncated(decoded, stated, short):
    assert bool(shortfall(decoded, stated)) is short


# Streams


def test_a_cover_picture_is_no_video(tmp_path):
    cover = cv2.imencode(".png", np.full((40, 40, 3), 90, np.uint8))[1].tobytes()
    path = tmp_path / "song.mka"
    with av.open(str(path), "w", format="matroska") as out:
        out.add_attachment("cover.png", "image/png", cover)
        stream = out.add_stream("flac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with av.open(str(path)) as plain:
        assert plain.streams.video  # libav does take the cover for a video stream
    with pytest.raises(SourceError, match="no video stream"), open_source(str(path)) as file:
        PyAVReader(file)


# Still images


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"MM\0*" + struct.pack(">IHHHIHH", 8, 1, 274, 3, 1, orientation, 0) + b"\0\0\0\0"
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def picture() -> np.ndarray:
    image = np.full((60, 90, 3), 40, np.uint8)
    image[:20, :30] = (250, 200, 30)
    image[40:, :30] = (20, 200, 250)
    return image


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_a_still_image_is_a_source_of_one_frame(tmp_path, ending):
    path = tmp_path / f"called_video.mp4{ending}"
    cv2.imwrite(str(path), picture(), [cv2.IMWRITE_WEBP_QUALITY, 101] if ending == ".webp" else [])
    os.rename(path, tmp_path / "x.mp4")  # the bytes count, not the name
    with open_source(str(tmp_path / "x.mp4")) as file:
        reader = open_reader(file)
        (frame,) = list(reader)
        assert file.content_hash() == xxhash.xxh3_128_hexdigest((tmp_path / "x.mp4").read_bytes())
    info = reader.info
    assert (info.media, info.width, info.height, info.fps, info.duration_s) == ("image", 90, 60, None, None)
    assert (frame.pts, frame.seconds, reader.last_end_pts, reader.truncated) == (0, 0.0, 1, None)
    assert frame.small.shape == (60, 90, 3) and frame.picture(480).shape == (320, 480, 3)
    assert np.abs(frame.small[8, 8].astype(int) - (250, 200, 30)).max() < 12
    assert reader.packets_bytes(0, 1) == (tmp_path / "x.mp4").stat().st_size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_as_opencv_does(orientation):
    data = with_exif(cv2.imencode(".jpg", picture())[1].tobytes(), orientation)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    reader = ImageReader(in_memory(data))
    (frame,) = reader
    assert (reader.info.height, reader.info.width) == expected.shape[:2]
    assert np.array_equal(frame.small, expected)
    assert tuple(map(len, frame.luma_means())) == expected.shape[:2]


def test_a_decompression_bomb_is_refused_by_its_header():
    png = bytearray(cv2.imencode(".png", picture())[1].tobytes())
    png[16:24] = struct.pack(">II", 60000, 60000)
    jpeg = bytearray(cv2.imencode(".jpg", picture())[1].tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    for bomb in (png, jpeg):
        with pytest.raises(SourceError, match="over 16384 px"):
            ImageReader(in_memory(bytes(bomb)))


@quick
@given(kind=st.sampled_from([".jpg", ".png", ".webp"]), kept=st.floats(0.02, 0.95))
def test_a_cut_off_image_is_refused_or_called_truncated(kind, kept):
    data = cv2.imencode(kind, picture())[1].tobytes()
    try:
        reader = ImageReader(in_memory(data[: max(12, int(len(data) * kept))]))
        assert reader.truncated.startswith("truncated: ")
    except SourceError as error:
        assert "\n" not in str(error)
