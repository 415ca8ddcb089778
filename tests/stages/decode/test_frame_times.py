"""Times of frames, also where a container's PTS follow the decoding order: every frame in order at its own time."""

from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.decode.frame_times import MOST_REORDERED, FrameTimes
from stages.decode.pyav_reader import PyAVReader
from stages.decode.seek_reader import SeekReader
from stages.decode.sources import open_source
from stages.unit import Source
from stages.windows.buckets import Bucket, window_of
from tests.hostile import write_video
from tests.numbered import film, number_of
from tests.stages.window_truth import UriReader

FRAMES, FPS = 200, 24
REORDERED = {"bf": "3", "g": "48", "preset": "veryfast"}


def in_decoding_order(path, codec="libx264", container="mov"):
    """A film whose packets have PTS = DTS, as VC-1, SVQ3 and old H.264 have in MOV."""
    whole = write_video(path.with_suffix(".mkv"), film(FRAMES), codec=codec, container="matroska", options=REORDERED)
    with av.open(str(whole)) as source, av.open(str(path), "w", format=container) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts, packet.dts, packet.duration = number, number, 1
            out.mux(packet)
    return path


def packed_xvid(path):
    """MPEG-4 in AVI as old XviD packed it: a chunk of two frames, then one that says only that nothing is coded."""
    whole = write_video(
        path.with_suffix(".nut"), film(FRAMES), codec="mpeg4", container="nut", options={"bf": "1", "g": "48"}
    )
    with av.open(str(whole)) as source:
        coded = [bytes(packet) for packet in source.demux(video=0) if packet.size]
        stream = source.streams.video[0]
        head = stream.codec_context.extradata + b"\0\0\1\xb2DivX503b1393p"
        with av.open(str(path), "w", format="avi") as out:
            made = out.add_stream_from_template(stream)
            made.codec_context.extradata = head
            kinds = [data[data.index(b"\0\0\1\xb6") + 4] >> 6 for data in coded]  # 0, 1, 2: I, P, B
            chunks = []
            for data, kind in zip(coded, kinds, strict=True):
                if kind == 2:
                    chunks[-1] += data
                    chunks.append(b"\0\0\1\xb6\x50\0\0\0")  # coded: no
                else:
                    chunks.append(data)
            for number, data in enumerate(chunks):
                packet = av.Packet(data)
                packet.stream, packet.time_base = made, Fraction(1, FPS)
                packet.pts = packet.dts = number
                packet.is_keyframe = b"\0\0\1\xb6" in data and data[data.index(b"\0\0\1\xb6") + 4] >> 6 == 0
                out.mux(packet)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for container in ("avi", "asf", "flv"):
        write_video(folder / f"h264.{container}", film(FRAMES), container=container, options=REORDERED)
    write_video(folder / "mpeg4.avi", film(FRAMES), codec="mpeg4", container="avi", options={"bf": "2", "g": "48"})
    in_decoding_order(folder / "h264.mov")
    in_decoding_order(folder / "mpeg4.mov", "mpeg4")
    return folder


NAMES = ["h264.avi", "h264.asf", "h264.flv", "mpeg4.avi", "h264.mov", "mpeg4.mov"]


def decoded(path):
    """(time base, [(PTS, number that the picture carries)], the reader) by one decode of the whole."""
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        frames = [(frame.pts, number_of(frame.picture(192))) for frame in reader]
        assert reader.damaged_frames(-(10**9), 10**9) == 0
        return reader.info.time_base, frames, reader


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_comes_in_order_at_its_own_time(films, name):
    base, frames, reader = decoded(films / name)
    assert [number for _, number in frames] == list(range(FRAMES))
    assert (reader.left_out, reader.disordered, reader.truncated, reader.decode_errors) == (0, None, None, 0)
    start = frames[0][0]
    for number, (pts, _) in enumerate(frames):
        off = 2 * base if base < Fraction(1, FPS) else 0
        assert abs((pts - start) * base - Fraction(number, FPS)) <= off


@pytest.mark.parametrize("name", NAMES)
def test_a_sought_frame_is_that_of_the_whole_decode(films, name):
    _, frames, _ = decoded(films / name)
    with open_source(str(films / name)) as file:
        seeking = SeekReader(file)
        for number in (150, 3, 149, 0, 199, 60, 47, 48, 49):
            pts = frames[number][0]
            found = seeking.frame_at(pts, 0, 10**9)
            assert (found.pts, number_of(found.picture(192))) == (pts, number)
            assert not seeking.lost(found.pts, pts)


@pytest.mark.parametrize("name", NAMES)
def test_a_window_has_each_frame_of_its_span_once(films, name):
    base, frames, _ = decoded(films / name)
    row = {
        "clip_id": "c", "media": "video", "start_pts": frames[70][0], "end_pts": frames[120][0], "fps": 24.0,
        "time_base_num": base.numerator, "time_base_den": base.denominator, "width": 192, "height": 112,
    }  # fmt: skip
    pixels = UriReader().read(window_of(row, Source("s", str(films / name)), Bucket(50, 112, 192), 24.0, "start"))
    assert [number_of(picture) for picture in pixels.video] == list(range(70, 120))


def test_packed_frames_come_in_order_at_their_times(tmp_path):
    base, frames, reader = decoded(packed_xvid(tmp_path / "packed.avi"))
    assert reader.left_out == 0
    assert [number for _, number in frames] == list(range(len(frames))) and len(frames) >= FRAMES - 1
    assert {(b - a) * base for (a, _), (b, _) in pairwise(frames)} == {Fraction(1, FPS)}


def coded(groups):
    """Frame numbers (in decoding order, in order of display) of groups of (P, B, B, ...)."""
    order, place = [], 0
    for behind in groups:
        order += [place + behind, *range(place, place + behind)]
        place += behind + 1
    return order, list(range(len(order)))


reorderings = st.lists(st.integers(0, 3), min_size=1, max_size=30)


def walked(reorders, packets, frames, lead):
    """Times of frames that come `lead` packets late: packets are (pts, dts), frames (pts, dts)."""
    times = FrameTimes(reorders)

    def decoder():
        for number, (pts, dts) in enumerate(packets):
            times.packet(SimpleNamespace(pts=pts, dts=dts))
            if number >= lead:
                yield SimpleNamespace(pts=frames[number - lead][0], dts=frames[number - lead][1])
        for pts, _ in frames[max(0, len(packets) - lead) :]:
            yield SimpleNamespace(pts=pts, dts=None)

    return [time for time, _ in times.timed(decoder())], times


@given(reorderings, st.integers(1, 4), st.integers(-50, 50), st.integers(1, 100))
def test_times_in_decoding_order_become_one_regular_time_line(groups, lead, start, step):
    order, shown = coded(groups)
    of = {number: start + step * at for at, number in enumerate(order)}  # the PTS that a container counts up
    packets = [(of[number], of[number] - step) for number in order]
    frames = [(of[number], of[order[min(number + lead, len(order) - 1)]] - step) for number in shown]
    found, _ = walked(True, packets, frames, lead)
    assert len(found) == len(shown)
    if len(shown) > lead:
        assert {b - a for a, b in pairwise(found)} <= {step}
        assert found[0] == start


@given(
    reorderings,
    st.integers(1, 4),
    st.lists(st.integers(1, 90), min_size=125, max_size=125),
    st.sets(st.integers(0, 120)),
)
def test_right_times_stay_what_they_are_whatever_frames_are_lost(groups, lead, steps, lost):
    order, shown = coded(groups)
    of = np.cumsum(steps).tolist()
    packets = [(of[number], at) for at, number in enumerate(order)]
    frames = [(of[number], number + lead) for number in shown]
    times = FrameTimes(True)

    def decoder():
        for number, (pts, dts) in enumerate(packets):
            times.packet(SimpleNamespace(pts=pts, dts=dts))
            if number >= lead and number - lead not in lost:
                yield SimpleNamespace(pts=frames[number - lead][0], dts=dts)
        for pts, _ in frames[max(0, len(packets) - lead) :]:
            yield SimpleNamespace(pts=pts, dts=None)

    kept = [of[n] for n in shown if n not in lost or n >= len(packets) - lead]
    assert [time for time, _ in times.timed(decoder())] == kept
    assert not times.by_dts


def test_no_more_frames_are_held_than_a_decoder_may_reorder():
    times, held = FrameTimes(True), 0
    times.packet(SimpleNamespace(pts=0, dts=-1))  # gives no frame, ever

    def decoder():
        nonlocal held
        for number in range(1, 200):
            times.packet(SimpleNamespace(pts=number, dts=number - 1))
            held += 1
            yield SimpleNamespace(pts=number, dts=number)

    for _ in times.timed(decoder()):
        held -= 1
        assert held <= MOST_REORDERED
