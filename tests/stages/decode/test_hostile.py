"""Hostile files: each is read or refused in one line; none opens another file or a connection."""

from __future__ import annotations

import os
import socket
import time

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.decode import containers
from stages.decode.child import Child
from stages.decode.messages import Message
from stages.decode.readers import open_reader
from stages.decode.sources import open_source
from stages.frames import SourceError
from tests.hostile import CANARY, Canary, make_hostile_folder, moving_square, references, write_video

HERE = "tests.stages.decode.test_hostile"


def read_in_child(call):
    yield Message(read_all(call.file, call.request, call.progress))


def read_through(uri, backend="pyav"):
    with open_source(uri) as file:
        return read_all(file, backend)


def read_all(file, backend, progress=lambda n: None):
    """Reads everything a decode pass would; gives (frames, truncated)."""
    with file:
        reader = open_reader(file, backend)
        last = None
        for frame in reader:
            assert last is None or frame.pts > last, (last, frame.pts)
            last = frame.pts
            assert max(frame.small.shape[:2]) <= 128
            if reader.frames % 8 == 1:
                frame.picture(480), frame.gray(480), frame.luma_means()
            progress(reader.frames)
        assert reader.last_end_pts > last
        reader.packets_bytes(0, reader.last_end_pts)
        file.content_hash()
        return reader.frames, reader.truncated


def call_child(child, path, backend="pyav"):
    task, limits = f"{HERE}:read_in_child", {"stall_s": 30, "limit_s": 60}
    (answer,) = child.call(task, backend, lambda message: message.fields, source=str(path), **limits)
    return answer


@pytest.fixture(scope="module")
def child():
    with Child(imports=("stages.decode.pyav_reader",)) as one:
        yield one


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """(folder, expectations, canary) with the canary watching."""
    path = tmp_path_factory.mktemp("hostile")
    with Canary(path) as canary:
        yield path, make_hostile_folder(path, canary.port), canary


@pytest.mark.parametrize("kind", ["pyav", "decord"])
def test_every_file_is_done_or_failed_with_a_reason_of_one_line(folder, child, kind):
    path, expected, canary = folder
    wrong = {}
    if kind == "decord":
        pytest.importorskip("decord")
        refused = ("claims_more_frames.mp4", "rotated.mp4", "two_pixels.mp4")
        expected = expected | dict.fromkeys(refused, "either")
    for name, outcome in expected.items():
        try:
            frames, _ = call_child(child, path / name, kind)
            got, detail = "done", f"{frames} frames"
            assert frames > 0
        except SourceError as error:
            got, detail = "failed", str(error)
            assert detail and "\n" not in detail and len(detail) < 400
            assert not any(place in detail for place in ("/proc/", "/src/", "Error:", ".py")), detail
        if outcome not in ("either", got):
            wrong[name] = (got, detail)
    assert not wrong
    assert not canary.touched()


@pytest.mark.parametrize("name", ["truncated_index_first.mp4", "claims_more_frames.mp4"])
def test_a_file_with_less_than_its_header_claims_ends_and_says_so(folder, name):
    path, _, _ = folder
    frames, truncated = read_through(str(path / name))
    assert 0 < frames <= 48
    assert truncated.startswith("truncated: ") and truncated.endswith("s decoded")


def test_a_whole_file_is_not_called_truncated(folder):
    path, _, _ = folder
    for name in ("good.mp4", "index_first.mp4", "one_frame.mp4", "variable_rate.mkv", "rotated.mp4"):
        _, truncated = read_through(str(path / name))
        assert truncated is None, name


@pytest.mark.parametrize("kind", ["pyav", "decord"])
def test_no_reference_inside_a_file_is_followed(folder, kind, tmp_path):
    if kind == "decord":
        pytest.importorskip("decord")
    path, _, canary = folder
    for name, data in references(path, canary.port).items():
        for ending in (".mp4", ".m3u8", ".mpd", ".sdp", ".ffconcat"):
            disguised = path / (name.removesuffix(".mp4") + ending)
            disguised.write_bytes(data)
            with pytest.raises(SourceError, match=r"references are never followed|decord backend takes"):
                read_through(str(disguised), kind)
            if ending != ".mp4":
                disguised.unlink()
    assert not canary.touched()


def test_the_canary_can_sing(tmp_path):
    """Plain libav does open what these files refer to: the tests above can fail."""
    with Canary(tmp_path) as canary:
        for name, data in references(tmp_path, canary.port).items():
            (tmp_path / name).write_bytes(data)
        with pytest.raises(av.FFmpegError):
            av.open(str(tmp_path / "list_concat.mp4"), timeout=5)
        assert canary.touched() == ["file"]
    with Canary(tmp_path / "second") as canary:
        (tmp_path / "list.m3u8").write_bytes(references(tmp_path, canary.port)["playlist_http.mp4"])
        # libav's own default keeps a local playlist off the network; scripts that read streams lift it
        lifted = {"protocol_whitelist": "file,http,tcp"}
        with pytest.raises(av.FFmpegError):
            av.open(str(tmp_path / "list.m3u8"), timeout=2, options=lifted)
        assert canary.touched() == ["network"]


@pytest.mark.parametrize("lock", ["formats", "opening"])
def test_each_lock_holds_by_itself(folder, lock, monkeypatch):
    """With every format allowed, opening is still refused; with opening allowed, the formats still are."""
    path, _, canary = folder
    if lock == "formats":
        monkeypatch.setattr(containers, "_refuse", lambda url, *_: open(url, "rb"))  # noqa: SIM115
    else:
        monkeypatch.setattr(containers, "FORMATS", containers.FORMATS + ",hls,concat,dash,sdp,rtsp")
    reasons = set()
    for name in ("list_concat.mp4", "playlist_hls.mp4", "playlist_http.mp4", "list_concat_http.mp4"):
        for label in ("x.mp4", "x.m3u8", str(path / name)):
            monkeypatch.setattr("stages.decode.reading.SafeFile.name", label)
            with pytest.raises(SourceError) as caught, open_source(str(path / name)) as file:
                containers.open_container(file)
            reasons.add(str(caught.value))
    assert any("refers to another file" in reason for reason in reasons) is (lock == "opening")
    assert not canary.touched()


def test_what_is_no_regular_file_is_refused_without_waiting(folder, monkeypatch):
    path, _, canary = folder
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(path)  # names of sockets are short
        bound.bind("socket.mp4")
        began = time.monotonic()
        kinds = {CANARY: "a pipe", "socket.mp4": "a socket", ".": "a folder", "/dev/null": "a device"}
        for name, reason in kinds.items():
            with pytest.raises(SourceError, match=reason):
                open_source(name)
        assert time.monotonic() - began < 2
    (path / "socket.mp4").unlink()
    assert not canary.touched()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_failed_with_that_reason(tmp_path):
    locked = tmp_path / "locked.mp4"
    locked.write_bytes(b"x")
    locked.chmod(0)
    with pytest.raises(SourceError, match="Permission denied"):
        open_source(str(locked))


def test_permission_denied_is_a_reason_for_root_s_tests_too(tmp_path, monkeypatch):
    def denied(*_args):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.mp4").write_bytes(b"x")
    monkeypatch.setattr("os.open", denied)
    with pytest.raises(SourceError, match="can't be opened: Permission denied"):
        open_source(str(tmp_path / "x.mp4"))


def test_names_that_no_file_can_have_are_refused():
    for name in ("nul\0byte.mp4", "x" * 5000 + ".mp4", "/no/such/folder/x.mp4", "nostore://bucket/x.mp4"):
        with pytest.raises(SourceError, match="can't be opened"):
            open_source(name)


def test_a_header_of_absurd_size_is_refused_before_anything_is_decoded(tmp_path):
    data = bytearray(write_video(tmp_path / "x.mp4", moving_square(3)).read_bytes())
    sample = data.index(b"avc1", data.index(b"stsd"))
    data[sample + 28 : sample + 32] = b"\xff\xff\xff\xff"
    (tmp_path / "x.mp4").write_bytes(data)
    try:  # either the header's size is believed and refused, or the codec's own is taken
        frames, _ = read_through(str(tmp_path / "x.mp4"))
        assert frames == 3
    except SourceError as error:
        assert "over 16384 px" in str(error)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    path = tmp_path_factory.mktemp("originals")
    mp4 = write_video(path / "a.mp4", moving_square(20), index_first=True).read_bytes()
    mkv = write_video(path / "b.mkv", moving_square(20), container="matroska").read_bytes()
    avi = write_video(path / "c.avi", moving_square(20), container="avi", codec="mpeg4").read_bytes()
    return path, (mp4, mkv, avi)


damage = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 2), bytes_set=damage, kept=st.floats(0, 1), early=st.booleans())
def test_damaged_bytes_give_frames_or_a_reason(originals, child, which, bytes_set, kept, early):
    path, files = originals
    data = bytearray(files[which])
    for place, value in bytes_set:  # half of the time in the header, where it hurts
        data[int(place * (2048 if early else len(data)))] = value
    (path / "damaged").write_bytes(data[: int(len(data) * max(kept, 0.1)) if kept < 0.9 else None])
    pid = child.pid
    try:
        frames, _ = call_child(child, path / "damaged")
        assert frames > 0
    except SourceError as error:
        assert "\n" not in str(error)
    assert pid in (None, child.pid)  # no example killed it
