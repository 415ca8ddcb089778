"""The decode pass as a whole: one decode for everything, bounded memory, frames for later stages, dying decoders."""

import os
import signal
import subprocess
import sys
import threading
import time

import av
import numpy as np
import psutil
import pytest

from stages.cuts.settings import CutSettings
from stages.decode.settings import ProbeSettings
from stages.decode.sources import open_source
from stages.frames import FrameRequest
from stages.measures.registry import MEASURES
from stages.scan.decode_pass import DecodePass
from stages.scan.messages import ScannedClip, ScannedSource, ScanSettings
from stages.scan.scan import scan
from stages.unit import Source, Unit, source_id
from tests.hostile import moving_square, write_video

PROBE, CUT = ProbeSettings(), CutSettings(min_seconds=0.5, max_seconds=20)
EVERYTHING = tuple(MEASURES)


def unit(path):
    return Unit("u", source=Source(source_id(str(path)), str(path)))


@pytest.fixture
def decode_pass():
    made = []

    def make(**settings):
        stage = DecodePass(settings.pop("probe", PROBE), settings.pop("cut", CUT), EVERYTHING, **settings)
        stage.setup()
        made.append(stage)
        return stage

    yield make
    for stage in made:
        stage.close()


def repeated(path, seconds, fps=4, take_s=40):
    """A long film of one encoded take, its packets written again and again with later times."""
    take = path.with_name("take.mp4")
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
    write_video(take, (np.roll(ground, i, axis=1) for i in range(fps * take_s)), fps=fps, codec="mpeg4")
    with av.open(str(take)) as source, av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [
            (bytes(p), p.pts, p.dts, p.is_keyframe, p.time_base) for p in source.demux(video=0) if p.dts is not None
        ]
        length = round(take_s / packets[0][4])
        for turn in range(seconds // take_s):
            for data, pts, dts, key, base in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, base, key
                packet.pts, packet.dts = pts + turn * length, dts + turn * length
                out.mux(packet)
    return path


PEAK = """
import resource, sys
from stages.decode.sources import open_source
from stages.scan.scan import scan
from tests.stages.scan.test_decode_pass import CUT, EVERYTHING, PROBE
from stages.scan.messages import ScannedClip, ScanSettings
from stages.frames import FrameRequest
wants = (FrameRequest((0.1, 0.5, 0.9), 336),)
settings = ScanSettings(PROBE, CUT, EVERYTHING, wants)
clips = sum(isinstance(m, ScannedClip) for m in scan(open_source(sys.argv[1]), settings, lambda n: None))
print(clips, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_a_two_hour_video_takes_no_more_memory_than_a_one_minute_one(tmp_path):
    found = {}
    for seconds in (80, 7200):
        film = repeated(tmp_path / f"{seconds}.mkv", seconds, fps=1)
        out = subprocess.run([sys.executable, "-c", PEAK, str(film)], capture_output=True, text=True, check=True)
        found[seconds] = [int(word) for word in out.stdout.split()]
    assert found[7200][0] >= 7200 / 21
    assert found[7200][1] <= found[80][1] + 100


@pytest.mark.slow
def test_a_long_source_leaves_in_parts_and_only_the_last_one_marks_it(tmp_path, decode_pass, monkeypatch):
    monkeypatch.setattr("stages.scan.decode_pass.PART_CLIPS", 4)
    film = repeated(tmp_path / "long.mkv", 400)
    parts = list(decode_pass()(unit(film)))
    assert [p.last for p in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 2
    assert [bool(p.scanned) for p in parts] == [p.last for p in parts]
    clips = [clip for p in parts for clip in p.clips]
    assert len({clip.clip_id for clip in clips}) == len(clips)
    assert sum(clip.row["frames"] for clip in clips) == parts[-1].scanned["frames"] == 1600


def test_the_frames_later_stages_ask_for_come_from_the_same_decode(tmp_path, decode_pass, monkeypatch):
    film = write_video(tmp_path / "film.mp4", moving_square(96, 192, 128))
    opened = []
    real = av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: opened.append(1) or real(*a, **k))
    wants = (FrameRequest((0.1, 0.5, 0.9), 64), FrameRequest((0.5,), 160))
    found = [
        m
        for m in scan(open_source(str(film)), ScanSettings(PROBE, CUT, EVERYTHING, wants), progress=lambda n: None)
        if isinstance(m, ScannedClip)
    ]
    assert len(opened) == 1
    for clip in found:
        three, one = clip.pixels
        length = clip.span.end_s - clip.span.start_s
        assert [round((s - clip.span.start_s) / length, 1) for s, _ in three] == pytest.approx([0.1, 0.5, 0.9], abs=0.1)
        assert all(picture.shape == (43, 64, 3) for _, picture in three)
        assert one[0][1].shape[1] == 160


def test_every_clip_has_a_thumbnail_that_can_be_looked_at(tmp_path, decode_pass):
    import cv2

    film = write_video(tmp_path / "film.mp4", moving_square(96, 640, 360))
    part = list(decode_pass()(unit(film)))[-1]
    assert part.clips
    for clip in part.clips:
        row = clip.thumbnail
        picture = cv2.imdecode(np.frombuffer(row["jpeg"], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (row["height"], row["width"], 3) == (180, 320, 3)


def test_even_a_clip_of_one_frame_has_a_thumbnail(tmp_path, decode_pass):
    rng = np.random.default_rng(3)
    takes = [rng.integers(0, 255, (9, 12, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8) for _ in range(3)]
    film = write_video(tmp_path / "film.mp4", [takes[0]] * 50 + [takes[1]] * 7 + [takes[2]])
    part = list(decode_pass()(unit(film)))[-1]
    assert min(clip.row["frames"] for clip in part.clips) == 1
    assert [clip.thumbnail["clip_id"] for clip in part.clips] == [clip.clip_id for clip in part.clips]


def test_an_early_end_fails_a_source_unless_the_recipe_keeps_what_is_left(tmp_path, decode_pass):
    whole = write_video(tmp_path / "whole.mp4", moving_square(240, 320, 240), index_first=True).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    failed = list(decode_pass()(unit(cut)))[-1]
    assert failed.failure.startswith("truncated")
    assert failed.clips == []
    assert failed.scanned["width"] == 320  # what the header said stays known
    kept = list(decode_pass(probe=ProbeSettings(truncated="keep"))(unit(cut)))[-1]
    assert kept.failure is None
    assert kept.clips


def stopped(stage, whole):
    """Sends a signal to the decoder as soon as it works."""

    def send():
        for _ in range(400):
            process = psutil.Process(stage.child.pid) if stage.child.pid else None
            if process is not None and process.cpu_times().user > 0.8:
                process.send_signal(whole)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_a_decoder_that_hangs_is_killed_and_the_source_failed_with_its_reason(tmp_path, decode_pass):
    film = repeated(tmp_path / "long.mkv", 2000)
    stage = decode_pass(probe=ProbeSettings(stall_seconds=2))
    thread = stopped(stage, signal.SIGSTOP)
    part = list(stage(unit(film)))[-1]
    thread.join()
    assert part.failure == "no progress for 2 s"
    after = write_video(tmp_path / "next.mp4", moving_square(48))
    assert list(stage(unit(after)))[-1].failure is None  # and the next source gets a new decoder


def test_a_source_that_takes_too_long_is_failed_with_the_limit(tmp_path, decode_pass):
    film = repeated(tmp_path / "long.mkv", 7200)
    part = list(decode_pass(probe=ProbeSettings(limit_seconds=1.5))(unit(film)))[-1]
    assert "1.5 s" in part.failure
    assert part.clips == []


def test_a_decoder_that_always_dies_fails_the_source_with_the_signal(tmp_path, decode_pass, monkeypatch):
    film = write_video(tmp_path / "film.mp4", moving_square(48))
    stage = decode_pass()
    monkeypatch.setattr("stages.scan.decode_pass.SCAN", "tests.stages.scan.test_decode_pass:suicide")
    part = list(stage(unit(film)))[-1]
    assert "signal 11" in part.failure


@pytest.mark.slow
def test_a_decoder_that_dies_once_is_given_another_chance(tmp_path, decode_pass):
    film = repeated(tmp_path / "long.mkv", 1000)
    stage = decode_pass()
    thread = stopped(stage, signal.SIGKILL)
    part = list(stage(unit(film)))[-1]
    thread.join()
    assert part.failure is None
    assert sum(clip.row["frames"] for clip in part.clips) == 4000


def suicide(call):
    yield ScannedSource(bytes=1).to_message()
    os.kill(os.getpid(), signal.SIGSEGV)
