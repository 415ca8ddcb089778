"""Lengths that a container rounds to its tick: a film of exactly so many frames has them wherever it is asked."""

from fractions import Fraction

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.cuts.settings import CutSettings
from stages.decode.settings import ProbeSettings
from stages.decode.sources import open_source
from stages.decode.ticks import forgiven, rounding
from stages.scan.decode_pass import DecodePass
from stages.scan.messages import ScannedClip, ScanSettings
from stages.scan.scan import scan
from stages.unit import Source
from stages.windows.buckets import Bucket, choose, frames_of, window_of
from tests.hostile import write_video
from tests.numbered import film, number_of
from tests.stages.window_truth import UriReader

RATES = [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60)]
CONTAINERS = {"mkv": ("matroska", "libx264"), "webm": ("webm", "libvpx"), "flv": ("flv", "libx264"),
              "asf": ("asf", "wmv2"), "mp4": ("mp4", "libx264"), "avi": ("avi", "mpeg4"),
              "ts": ("mpegts", "libx264")}  # fmt: skip


def clips(path, probe=None, **cut):
    """Rows of `clips`, in order."""
    settings = ScanSettings(probe or ProbeSettings(), CutSettings(**{"detector": "none", "gradual": False} | cut), ())
    found = [a for a in scan(open_source(str(path)), settings, lambda n: None) if isinstance(a, ScannedClip)]
    return [answer.columns | {"media": "video", "clip_id": str(answer.span.start_pts)} for answer in found]


def passes(row, probe=0.0, cut=0.0):
    """Whether a row passes the gates of the decode pass, as DuckDB judges them."""
    gates = DecodePass(ProbeSettings(min_seconds=probe), CutSettings(min_seconds=cut, max_seconds=99), ()).gates()
    names = ("media", "start_pts", "end_pts", "start_s", "end_s", "source_s", "fps", "time_base_num", "time_base_den")
    columns = ", ".join(f"${name} AS {name}" for name in names)
    values = {name: row[name] for name in names}
    return all(
        duckdb.execute(f"SELECT {where} FROM (SELECT {columns})", values).fetchone()[0] for where in gates.values()
    )


def drawn(tmp_path, kind, fps, frames):
    container, codec = CONTAINERS[kind]
    return write_video(tmp_path / f"film.{kind}", film(frames, 96, 64), container=container, codec=codec, fps=fps)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_film_of_exactly_so_many_frames_has_them(tmp_path, kind, fps):
    for frames in (48, 50, 53):
        path = drawn(tmp_path, kind, fps, frames)
        seconds = float(frames / fps)
        (row,) = clips(path)
        assert row["frames"] == frames
        assert passes(row, cut=seconds) and passes(row, probe=seconds)
        assert not passes(row, cut=float((frames + 1) / fps))
        assert frames_of(row, float(fps)) == frames
        assert choose(row, [Bucket(frames, 64, 96)], float(fps)) == Bucket(frames, 64, 96)
        assert isinstance(choose(row, [Bucket(frames + 1, 64, 96)], float(fps)), str)
        window = window_of(row, Source("s", str(path)), Bucket(frames, 64, 96), float(fps))
        assert [number_of(picture) for picture in UriReader().read(window).video] == list(range(frames))
        (kept,) = clips(path, ProbeSettings(min_seconds=seconds))
        assert kept["frames"] == frames  # and it was decoded


@pytest.mark.parametrize("kind", ["mkv", "flv", "mp4", "avi"])
def test_a_scene_as_long_as_a_clip_may_be_is_one_clip_and_longer_ones_are_split_there(tmp_path, kind):
    path = drawn(tmp_path, kind, Fraction(24), 100)
    for limit in (100, 101):
        (row,) = clips(path, min_seconds=0.5, max_seconds=limit / 24)
        assert row["frames"] == 100
    rows = clips(path, min_seconds=0.5, max_seconds=40 / 24)
    assert [row["frames"] for row in rows] == [40, 40, 20]
    rows = clips(path, detector="fixed", seconds=16 / 24, min_seconds=0.1)
    assert [row["frames"] for row in rows] == [16] * 6 + [4]


@given(st.integers(1, 10**6), st.fractions(1, 500))
def test_what_is_forgiven_is_never_half_a_frame(den, fps):
    base = Fraction(1, den)
    assert forgiven(base, float(fps)) * fps <= Fraction(1, 2) + Fraction(1, 10**9)
    assert rounding(base, float(fps)) == (1 if 4 * fps <= den else 0)


def test_a_clock_that_counts_frames_is_exact():
    row = {"media": "video", "start_pts": 0, "end_pts": 47, "time_base_num": 1, "time_base_den": 24, "fps": 24.0}
    assert frames_of(row, 24.0) == 47
    assert not passes(row | {"start_s": 0.0, "end_s": 47 / 24, "source_s": 47 / 24}, cut=1.97)
