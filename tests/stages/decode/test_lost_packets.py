"""Packets lost from a transport stream: the damage is counted, clips know of it, windows over it are refused."""

import numpy as np
import pytest

from stages.cuts.settings import CutSettings
from stages.decode.readers import open_reader
from stages.decode.settings import ProbeSettings
from stages.decode.sources import open_source
from stages.frames import SourceError
from stages.scan.messages import ScannedClip, ScannedSource, ScanSettings
from stages.scan.scan import scan
from stages.unit import Source
from stages.windows.buckets import Bucket, window_of
from tests.hostile import write_video
from tests.numbered import film
from tests.stages.window_truth import UriReader

PACKET, LOST = 188, 11  # bytes, packets
GROUP, FRAMES = 24, 240
CODECS = {
    "libx264": {"bf": "3", "g": str(GROUP), "sc_threshold": "0", "preset": "veryfast"},
    "mpeg2video": {"bf": "2", "g": str(GROUP), "sc_threshold": "1000000000", "b": "2M"},
    "libx265": {"x265-params": f"keyint={GROUP}:scenecut=0:bframes=3:log-level=none", "preset": "ultrafast"},
}


@pytest.fixture(scope="module", params=CODECS)
def whole(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("streams") / f"{request.param}.ts"
    return write_video(path, film(FRAMES), codec=request.param, container="mpegts", options=CODECS[request.param])


def without(path, share, to):
    """The stream without LOST packets at that share of its length."""
    data = path.read_bytes()
    at = int(share * (len(data) // PACKET)) * PACKET
    to.write_bytes(data[:at] + data[at + LOST * PACKET :])
    return to


def pictures(path):
    with open_source(str(path)) as file:
        return {frame.pts: frame.picture(192) for frame in open_reader(file)}


def scanned(path):
    """(columns of `sources`, columns of its clips of half a second)."""
    cut = CutSettings(detector="fixed", seconds=0.5, min_seconds=0.1, max_seconds=1)
    settings = ScanSettings(ProbeSettings(), cut, ())
    source, clips = {}, []
    for answer in scan(open_source(str(path)), settings, lambda n: None):
        if isinstance(answer, ScannedSource):
            source |= answer.columns
        if isinstance(answer, ScannedClip):
            clips.append(answer.columns | {"clip_id": str(answer.span.start_pts), "media": "video"})
    return source, clips


def windows(path, clips):
    return [
        window_of(clip, Source("s", str(path), bytes=path.stat().st_size), Bucket(clip["frames"], 112, 192), 24.0)
        for clip in clips
    ]


def test_a_whole_stream_has_no_damage(whole):
    source, clips = scanned(whole)
    assert (source["decode_errors"], source["frames"]) == (0, FRAMES)
    assert [clip["damaged_frames"] for clip in clips] == [0] * len(clips)


@pytest.mark.parametrize("share", [0.12, 0.3, 0.5, 0.52, 0.71, 0.93])
def test_no_broken_picture_goes_unnoticed_and_few_whole_ones_are_lost(whole, share, tmp_path):
    truth = pictures(whole)
    path = without(whole, share, tmp_path / "lost.ts")
    found = pictures(path)
    broken = {pts for pts, picture in found.items() if not np.array_equal(picture, truth[pts])}
    missing = truth.keys() - found.keys()
    assert broken or missing
    source, clips = scanned(path)
    assert source["decode_errors"] >= 1
    refused = 0
    reader = UriReader()
    for clip, window in zip(clips, windows(path, clips), strict=True):
        span = range(clip["start_pts"], clip["end_pts"])
        wrong = sum(pts in span for pts in broken)
        assert clip["damaged_frames"] >= wrong
        try:
            pixels = reader.read(window)
        except SourceError as error:
            refused += 1
            assert "can't be decoded: the file is damaged there" in str(error)
            assert clip["damaged_frames"] or any(pts in span for pts in missing)
        else:
            assert not broken & set(pixels.pts)
    assert 1 <= refused <= 5  # of 20: at most two groups of pictures


def test_a_gate_can_ask_for_the_damage_of_a_clip(whole, tmp_path):
    _, clips = scanned(without(whole, 0.5, tmp_path / "lost.ts"))
    damaged = [clip["damaged_frames"] > 0 for clip in clips]
    assert 1 <= sum(damaged) <= 5 and not damaged[0] and not damaged[-1]
