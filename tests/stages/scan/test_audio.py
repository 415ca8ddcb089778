"""The sound of clips in the decode pass: by their span in time, and never at the video's cost."""

from __future__ import annotations

import av
import numpy as np
import pytest

from stages.cuts.settings import CutSettings
from stages.decode.audio_track import AudioTrack
from stages.decode.settings import ProbeSettings
from stages.decode.sources import open_source
from stages.frames import SourceError
from stages.scan.messages import ScannedClip, ScanSettings
from stages.scan.scan import scan
from tests.hostile import flip_bits
from tests.sounds import decoded, ebur128, speech, tones, write_film

LOUD, SILENT = -20.0, -np.inf
AUDIO = ("exposure", "audio")


def scanned(path, measures=AUDIO, **probe):
    """(columns of the source, columns of each clip)."""
    settings = ScanSettings(ProbeSettings(**probe), CutSettings(min_seconds=0.1, max_seconds=20), measures)
    source, clips = {}, []
    for answer in scan(open_source(str(path)), settings, lambda frames: None):
        if isinstance(answer, ScannedClip):
            clips.append(answer.columns)
        else:
            source |= answer.columns
    return source, clips


def takes(*frames: int):
    """Pictures of takes of so many frames, with hard cuts between them."""
    rng = np.random.default_rng(1)
    for count in frames:
        ground = rng.integers(0, 255, (8, 12, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        for index in range(count):
            yield np.roll(ground, index, axis=1)


@pytest.mark.parametrize(("codec", "container", "rate", "layout"), [
    ("flac", "matroska", 48000, "stereo"), ("pcm_s16le", "mov", 44100, "mono"), ("pcm_f32le", "matroska", 96000, "5.1"),
    ("aac", "mp4", 44100, "stereo"), ("libopus", "matroska", 48000, "stereo"), ("ac3", "mpegts", 48000, "5.1"),
    ("mp2", "mpeg", 48000, "stereo"), ("libmp3lame", "flv", 44100, "stereo"), ("wmav2", "asf", 44100, "stereo"),
    ("pcm_u8", "avi", 22050, "mono"), ("alac", "mp4", 32000, "stereo"), ("vorbis", "matroska", 44100, "stereo"),
    ("pcm_s24le", "mov", 48000, "5.1"),
])  # fmt: skip
def test_each_clip_is_as_loud_as_its_own_span_of_the_sound(tmp_path, codec, container, rate, layout):
    channels = av.AudioLayout(layout).nb_channels
    sound = speech(6, rate, channels, seed=5)
    film = write_film(tmp_path / "film", sound, codec=codec, container=container, rate=rate, layout=layout,
                      video_codec="mpeg2video" if container == "mpeg" else "libx264",
                      pictures=takes(31, 47, 66), seconds=6)  # fmt: skip
    source, clips = scanned(film)
    assert (source["has_audio"], source["audio_channels"], source["audio_rate"]) == (True, channels, rate)
    assert len(clips) == 3 and source["audio_errors"] == 0
    heard, begin = decoded(film)
    for clip in clips:
        start, end = (max(0, round((clip[name] - begin) * rate)) for name in ("start_s", "end_s"))
        assert clip["loudness"] == pytest.approx(ebur128(heard[:, start:end], rate, layout), abs=0.1)
        assert clip["audio_reason"] is None


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "nut"])
@pytest.mark.parametrize("start_s", [0.0, 0.5, 1.75])
def test_sound_that_begins_late_is_heard_where_it_lies(tmp_path, container, start_s):
    sound = tones([(4 - start_s, LOUD)], 48000, 2)
    film = write_film(tmp_path / "film", sound, container=container, start_s=start_s, pictures=takes(24, 72))
    _, (first, second) = scanned(film)
    assert first["silence"] == pytest.approx(min(1, start_s), abs=0.03)  # AAC begins with a fade of a thousand samples
    assert second["silence"] == pytest.approx(max(0, start_s - 1) / 3, abs=0.01)
    assert second["loudness"] == pytest.approx(LOUD, abs=0.1)


def test_planted_silence_is_found_clip_by_clip(tmp_path):
    sound = tones([(1, LOUD), (0.5, SILENT), (1.5, LOUD), (1, SILENT)], 48000, 2)
    film = write_film(tmp_path / "film.mkv", sound, codec="flac", container="matroska", pictures=takes(24, 24, 24, 24))
    _, clips = scanned(film)
    assert [clip["silence"] for clip in clips] == pytest.approx([0, 0.5, 0, 1], abs=0.01)
    assert [clip["loudness"] for clip in clips[::2]] == pytest.approx([LOUD, LOUD], abs=0.1)
    assert clips[3]["loudness"] < -60  # the filters' own tail


def test_without_sound_the_columns_are_unknown_and_not_zero(tmp_path):
    source, clips = scanned(write_film(tmp_path / "film.mp4", None, pictures=takes(24, 24), seconds=2))
    assert (source["has_audio"], source["audio_codec"], source["audio_rate"]) == (False, None, None)
    assert {(clip["loudness"], clip["silence"], clip["audio_reason"]) for clip in clips} == {(None, None, None)}


def test_the_header_tells_of_the_sound_and_nothing_is_decoded_unless_asked_for(tmp_path, monkeypatch):
    film = write_film(tmp_path / "film.mp4", tones([(4, LOUD)], 44100, 1), rate=44100, layout="mono")
    monkeypatch.setattr(AudioTrack, "__init__", lambda *_: pytest.fail("the sound was opened"))
    source, clips = scanned(film, measures=("exposure",))
    found = {name: source[name] for name in source if "audio" in name}
    wanted = {"has_audio": True, "audio_codec": "aac", "audio_channels": 1, "audio_rate": 44100, "audio_errors": None}
    assert found == wanted
    assert "loudness" not in clips[0]


def test_sound_that_ends_early_is_silence_after_it(tmp_path):
    for container in ("mp4", "matroska"):
        film = write_film(
            tmp_path / "film", tones([(1.5, LOUD)], 48000, 2), container=container, pictures=takes(24, 24, 48)
        )
        _, clips = scanned(film)
        assert [clip["silence"] for clip in clips] == pytest.approx([0, 0.5, 1], abs=0.03)
        assert clips[2]["loudness"] == -70


def test_a_gap_in_the_sound_is_silence_and_shifts_nothing(tmp_path):
    sound = tones([(1, LOUD), (1, SILENT), (2, LOUD)], 48000, 2)
    film = tmp_path / "film.mkv"
    write_film(tmp_path / "whole.mkv", sound, codec="pcm_s16le", container="matroska", pictures=takes(24, 24, 48))
    with av.open(str(tmp_path / "whole.mkv")) as whole, av.open(str(film), "w", format="matroska") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            second = packet.pts is not None and packet.stream.type == "audio" and 1 <= packet.pts * packet.time_base < 2
            if packet.dts is not None and not second:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    _, clips = scanned(film)
    assert [clip["silence"] for clip in clips] == pytest.approx([0, 1, 0], abs=0.01)
    assert clips[2]["loudness"] == pytest.approx(LOUD, abs=0.1)


def damaged(path, codec="mp2", container="matroska"):
    """A film whose sound is garbage from 1.2 s to 1.6 s."""
    whole = write_film(path.with_name("whole"), tones([(4, LOUD)], 48000, 2), codec=codec, container=container,
                       pictures=takes(24, 24, 48))  # fmt: skip
    rng = np.random.default_rng(0)
    with av.open(str(whole)) as source, av.open(str(path), "w", format=container) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio" and 1.2 <= packet.pts * packet.time_base < 1.6:
                made = av.Packet(rng.bytes(packet.size))
                made.pts, made.dts, made.time_base, made.duration = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                    packet.duration,
                )
                made.stream = streams[packet.stream.index]
                out.mux(made)
            else:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path


@pytest.mark.parametrize("codec", ["mp2", "aac", "ac3", "flac"])
def test_damaged_sound_costs_the_clips_that_hold_it_their_sound_and_nothing_else(tmp_path, codec):
    _, whole = scanned(damaged(tmp_path / "film.mkv", codec), measures=("exposure",))
    source, clips = scanned(tmp_path / "film.mkv")
    assert source["decode_errors"] == 0 and source["audio_errors"] > 0 and source["frames"] == 96
    assert [clip["luma_mean"] for clip in clips] == [clip["luma_mean"] for clip in whole]
    first, second, third = clips
    assert second["loudness"] is None and second["silence"] is None
    assert second["audio_reason"].startswith("damaged sound: ") and "can't be decoded" in second["audio_reason"]
    assert first["loudness"] == pytest.approx(LOUD, abs=0.1) and first["audio_reason"] is None
    assert third["loudness"] == pytest.approx(LOUD, abs=0.1) and third["silence"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("container", ["mp4", "mpegts"])
def test_flipped_bits_anywhere_never_cost_more_than_they_cost_without_the_sound(tmp_path, container):
    whole = write_film(tmp_path / "whole", tones([(2, LOUD)], 48000, 2), container=container, seconds=2)
    for seed in range(8):
        film = tmp_path / "film"
        film.write_bytes(flip_bits(whole.read_bytes(), 60, seed, start=600))
        deaf, hearing = (frames_of(film, measures) for measures in (("exposure",), AUDIO))
        assert hearing >= deaf, seed


def frames_of(film, measures):
    """Frames that a scan got, -1 where it failed."""
    try:
        return scanned(film, measures, truncated="keep")[0]["frames"]
    except SourceError:
        return -1
