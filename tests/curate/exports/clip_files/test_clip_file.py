"""A clip's MP4 shows exactly the clip: bit for bit where its packets are copied, at the same times where not."""

from __future__ import annotations

import io
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.exports.clip_files.clip_file import write_clip
from curate.exports.clip_files.messages import ClipFile, ClipFileRequest, parse_answer
from curate.exports.clip_pool import WRITE
from stages.decode.child import Child
from stages.decode.fetch import open_seeker
from stages.decode.pyav_reader import PyAVReader
from stages.decode.sources import open_source
from stages.frames import SourceError
from stages.windows.window import Window
from tests.hostile import write_video

COUNT = 60
X264 = {"g": "12", "bf": "2", "sc_threshold": "0", "crf": "10"}
VP9 = {"g": "12", "deadline": "realtime", "crf": "10", "b": "0"}
X265 = "open-gop=0:keyint=12:min-keyint=12:bframes=2:crf=10:log-level=none"
FILMS = {
    "closed.mp4": {"options": X264},
    "no_b.mp4": {"options": X264 | {"bf": "0"}},
    "open.mkv": {"container": "matroska", "options": X264 | {"x264-params": "open-gop=1"}},
    "transport.ts": {"container": "mpegts", "options": X264},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": X265}},
    "vp9.webm": {"codec": "libvpx-vp9", "container": "webm", "options": VP9},
    "full.mp4": {"pixel_format": "yuvj420p", "color_range": 2, "options": X264},
    "ten_bit.mp4": {"pixel_format": "yuv420p10le", "options": X264},
    "uneven.mkv": {"container": "matroska", "time_base": Fraction(1, 1000), "options": X264,
                   "pts": [41 * n + 7 * (n % 3) for n in range(COUNT)]},
}  # fmt: skip
# In these a copy would show something else than clipmill does, or would play nowhere.
NEVER = {
    "turned.mp4": {"rotation": 90, "options": X264},
    "wide.mp4": {"aspect": Fraction(4, 3), "options": X264},
    "mpeg4.avi": {"codec": "mpeg4", "container": "avi", "options": {"g": "12"}},
    "woven.mkv": {"container": "matroska", "options": X264 | {"flags": "+ildct+ilme", "x264-params": "tff=1"}},
}


def numbered(count=COUNT, width=96, height=64):
    """Pictures that differ, with some texture."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 200, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    for number in range(count):
        picture = np.roll(ground, 2 * number, axis=1)
        picture[8:24, :16] = number * 4
        yield picture


def as_limited(gray):
    """Stored luma of a gray."""
    return 16 + gray * 219 / 255


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name, how in (FILMS | NEVER).items():
        write_video(folder / name, numbered(), **how)
    return folder


def scanned(path):
    """(time base, PTS of every frame and of the end, displayed size)."""
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        times = [frame.pts for frame in reader]
        return reader.info.time_base, [*times, reader.last_end_pts], (reader.info.width, reader.info.height)


def request_of(path, first=0, last=COUNT, size=None, crop=None, fps=None, **how):
    base, times, shown = scanned(path)
    width, height = size or shown
    frames = last - first if fps is None else int((times[last] - times[first]) * base * Fraction(fps))
    window = Window(
        "clip", str(path), None, times[first], times[last], base, 0.0, fps or 24.0, frames, crop, height, width
    )
    return ClipFileRequest(window, fps is None, **how)


def made(request):
    """(what is said of the file, its bytes)."""
    target = io.BytesIO()
    with open_source(request.window.uri) as file:
        return write_clip(open_seeker(file, None, 1, lambda n: None), request, target), target.getvalue()


def frames_of(data):
    """(seconds, stored picture) of every frame of an MP4."""
    with av.open(io.BytesIO(data)) as container:
        return [(f.pts * f.time_base, f.to_ndarray()) for f in container.decode(video=0)]


def stored(path, first, last):
    """The frames of the source from `first` to `last`, decoded from its start: (seconds after the first, picture)."""
    with av.open(str(path)) as container:
        frames = [(f.pts * f.time_base, f.to_ndarray()) for f in container.decode(video=0)]
    frames.sort(key=lambda frame: frame[0])
    return [(seconds - frames[first][0], picture) for seconds, picture in frames[first:last]]


@pytest.mark.parametrize("name", FILMS)
def test_a_span_of_whole_groups_is_copied_bit_for_bit(films, name):
    path = films / name
    with av.open(str(path)) as container:
        shown = sorted(container.decode(video=0), key=lambda frame: frame.pts)
    keys = [number for number, frame in enumerate(shown) if frame.key_frame]
    # The last frames of an open group refer to the next one's key frame.
    first, last = keys[1], COUNT if name == "open.mkv" else [*keys, COUNT][3]
    said, data = made(request_of(path, first, last))
    assert said.copied and said.frames == last - first and said.bytes == len(data)
    wanted = stored(path, first, last)
    assert [seconds for seconds, _ in frames_of(data)] == [seconds for seconds, _ in wanted]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(frames_of(data), wanted, strict=True))
    assert data.index(b"moov") < data.index(b"mdat")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(FILMS)), cut=st.tuples(st.integers(0, COUNT - 1), st.integers(1, 30)))
def test_any_span_has_its_own_frames_and_no_other_at_their_times(films, name, cut):
    first, last = cut[0], min(COUNT, cut[0] + cut[1])
    said, data = made(request_of(films / name, first, last))
    shown, wanted = frames_of(data), stored(films / name, first, last)
    assert said.frames == len(shown) == last - first
    assert [round(float(seconds), 4) for seconds, _ in shown] == [round(float(seconds), 4) for seconds, _ in wanted]
    if said.copied:
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(shown, wanted, strict=True))
    else:  # the mark that counts frames is theirs
        marks = np.array([picture[10:22, 2:14].mean() for _, picture in shown])
        assert np.abs(marks - [as_limited(4 * number) for number in range(first, last)]).max() < 2.5


@pytest.mark.parametrize("name", NEVER)
def test_what_a_copy_would_show_otherwise_is_encoded_as_displayed(films, name):
    said, data = made(request_of(films / name))
    _, _, size = scanned(films / name)
    assert not said.copied and said.codec == "h264"
    shown = frames_of(data)
    assert len(shown) == COUNT and (said.width, said.height) == size
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 0, 1)
        assert next(container.decode(video=0)).rotation == 0


def test_high_dynamic_range_is_never_copied(tmp_path):
    def setup(path, transfer):
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=24, options=X264)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
            stream.codec_context.color_trc, stream.codec_context.colorspace = transfer, 9
            for picture in numbered(24):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p10le")))
            out.mux(stream.encode(None))
        return path

    answers = {name: made(request_of(setup(tmp_path / f"{name}.mp4", trc), 0, 12))[0].copied
               for name, trc in (("sdr", 1), ("pq", 16), ("hlg", 18))}  # fmt: skip
    assert answers == {"sdr": True, "pq": False, "hlg": False}


def test_a_size_a_crop_or_no_wish_for_copies_encodes(films):
    path = films / "closed.mp4"
    assert made(request_of(path))[0].copied
    for more in ({"copy": False}, {"size": (64, 64)}, {"crop": (0, 8, 96, 48), "size": (96, 48)}):
        said, data = made(request_of(path, **more))
        assert not said.copied and said.frames == COUNT
        assert frames_of(data)[0][1].shape[1] == more.get("size", (96, 64))[0]


def test_a_constant_rate_takes_the_frames_that_are_shown_then_and_copies_what_has_it_already(films):
    path = films / "closed.mp4"
    assert made(request_of(path, fps=24.0))[0].copied
    said, data = made(request_of(path, fps=8.0))
    assert not said.copied and said.fps == 8.0
    shown = frames_of(data)
    assert [seconds for seconds, _ in shown] == [Fraction(number, 8) for number in range(20)]
    marks = np.array([picture[10:22, 2:14].mean() for _, picture in shown])
    assert np.all(np.abs(np.diff(marks) - 12 * 219 / 255) < 3)  # each third frame
    assert not made(request_of(films / "uneven.mkv", fps=24.0))[0].copied


def test_a_damaged_span_is_refused_and_its_neighbour_is_not(films, tmp_path):
    """Copied blindly, the packets of the damaged span would make a file of broken pictures."""
    path = tmp_path / "damaged.mp4"
    data = bytearray((films / "closed.mp4").read_bytes())
    with av.open(str(films / "closed.mp4")) as container:
        hit = [packet.pos for packet in container.demux(video=0) if packet.size][15]
    data[hit + 8 : hit + 60] = bytes(52)
    path.write_bytes(data)
    assert made(request_of(films / "closed.mp4", 24, 36))[0].copied
    with pytest.raises(SourceError, match="can't be decoded"):
        made(request_of_damaged(films / "closed.mp4", path, 12, 24))
    assert made(request_of_damaged(films / "closed.mp4", path, 24, 36))[0].copied


def request_of_damaged(whole, damaged, first, last):
    """The span as the scan of the whole file saw it."""
    request = request_of(whole, first, last)
    window = {**vars(request.window), "uri": str(damaged)}
    return ClipFileRequest(Window(**window))


def test_an_animation_becomes_a_film_with_its_frame_times(tmp_path):
    from PIL import Image

    frames = [Image.fromarray(picture) for picture in numbered(6)]
    lasting = [100, 40, 80, 200, 60, 120]
    path = tmp_path / "a.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=lasting, lossless=True)
    window = Window("clip", str(path), None, 40 + 60, 480, Fraction(1, 1000), 0.0, 10.0, 4, None, 64, 96)
    said, data = made(ClipFileRequest(window))
    assert (said.copied, said.frames, said.codec) == (False, 4, "h264")
    shown = frames_of(data)
    assert [round(1000 * seconds) for seconds, _ in shown] == [0, 40, 120, 320]
    marks = [picture[10:22, 2:14].mean() for _, picture in shown]
    assert np.abs(np.array(marks) - [as_limited(4 * number) for number in range(1, 5)]).max() < 2.5


def test_a_still_image_is_no_clip(tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    window = Window("clip", str(tmp_path / "a.png"), None, 0, 1, Fraction(1), 0.0, 1.0, 1, None, 64, 64)
    with pytest.raises(SourceError, match="still image"):
        made(ClipFileRequest(window))


def test_the_child_sends_the_file_in_pieces_and_keeps_the_source_open(films):
    asked = partial(parse_answer)
    with Child(("curate.exports.clip_files.clip_file",)) as child:
        for first in (0, 12, 30):
            request = request_of(films / "closed.mp4", first, first + 12)
            *pieces, said = child.call(WRITE, request.to_json(), asked, source=request.window.uri)
            data = b"".join(piece.tobytes() for piece in pieces)
            assert isinstance(said, ClipFile) and said.bytes == len(data) and said.copied == (first != 30)
            assert len(frames_of(data)) == 12
        with pytest.raises(SourceError, match="time base"):
            wrong = {**vars(request.window), "time_base": Fraction(1, 7)}
            wrong_request = ClipFileRequest(Window(**wrong)).to_json()
            list(child.call(WRITE, wrong_request, asked, source=request.window.uri))
