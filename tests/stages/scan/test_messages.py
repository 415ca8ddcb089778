"""Answers of a scan: what was sent arrives, and what no scan says fails the source."""

import os
from itertools import chain

import numpy as np
import pytest

from stages.cuts.settings import CutSettings
from stages.decode.messages import Message
from stages.decode.settings import ProbeSettings
from stages.frames import FrameRequest, Span
from stages.scan.decode_pass import DecodePass
from stages.scan.messages import AnswerParser, ScannedClip, ScannedSource, ScanSettings
from stages.unit import Source, Unit

WANTS = (FrameRequest((0.1, 0.9), 64), FrameRequest((0.5,), 16))
TYPES = {"motion": "double", "phash": "string", "crop_x": "int64"}
HEADER = ScannedSource(media="video", width=640, fps=29.97)


def picture(height, width, value=7):
    return np.full((height, width, 3), value, np.uint8)


def clip(start=0, **columns):
    span = Span(3, start, start + 100, start / 100, start / 100 + 1)
    row = {
        "scene": 3, "start_s": span.start_s, "end_s": span.end_s, "start_pts": start, "end_pts": start + 100,
        "motion": 0.1 + 0.2, "phash": "00ff", "crop_x": None, "fps": float("inf"),
    } | columns  # fmt: skip
    pixels = [[(0.1, picture(36, 64)), (0.9, picture(36, 64, 9))], [(0.5, picture(16, 9))]]
    return ScannedClip(span, row, (32, 18, b"a jpeg"), pixels)


def parser():
    parse = AnswerParser(WANTS, TYPES)
    parse(HEADER.to_message())
    return parse


def test_what_a_scan_found_arrives_as_it_was():
    parse = AnswerParser(WANTS, TYPES)
    assert parse(ScannedSource(bytes=5).to_message()).columns == {"bytes": 5}
    assert parse(HEADER.to_message()) == HEADER
    sent, got = clip(), parse(clip().to_message())
    assert (got.span, got.columns, got.thumbnail) == (sent.span, sent.columns, sent.thumbnail)
    for ours, theirs in zip(chain(*sent.pixels), chain(*got.pixels), strict=True):
        assert ours[0] == theirs[0] and np.array_equal(ours[1], theirs[1])


def test_a_clip_may_have_neither_thumbnail_nor_frames():
    bare = clip()
    bare.thumbnail, bare.pixels = None, []
    got = parser()(bare.to_message())
    assert got.thumbnail is None and got.pixels == []


def test_settings_arrive_as_they_were():
    settings = ScanSettings(ProbeSettings(min_seconds=0.1), CutSettings(threshold=1 / 3), ("motion",), WANTS)
    assert ScanSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "columns",
    [
        {"verdict": "kept"}, {"motion": "0.5"}, {"phash": 5}, {"crop_x": 2**63}, {"width": 2**31}, {"scene": True},
        {"motion": [0.5]}, {"start_pts": None}, {"end_pts": None}, {"motion": 10**400},
    ],
)  # fmt: skip
def test_columns_that_no_table_can_take_are_refused(columns):
    with pytest.raises(ValueError):
        parser()(clip(**columns).to_message())


def test_clips_before_the_header_or_out_of_order_are_refused():
    with pytest.raises(ValueError, match="out of order"):
        AnswerParser(WANTS, TYPES)(clip().to_message())
    parse = parser()
    parse(clip(100).to_message())
    for start in (100, 50):
        with pytest.raises(ValueError, match="out of order"):
            parse(clip(start).to_message())


@pytest.mark.parametrize(
    "change",
    [
        lambda fields, arrays: arrays.pop(),
        lambda fields, arrays: arrays.append(picture(1, 1)),
        lambda fields, arrays: arrays.__setitem__(1, picture(65, 1)),
        lambda fields, arrays: arrays.__setitem__(1, np.zeros((4, 4), np.uint8)),
        lambda fields, arrays: fields["seconds"].pop(),
        lambda fields, arrays: fields["seconds"][0].pop(),
        lambda fields, arrays: fields["seconds"].__setitem__(1, ["0.5"]),
        lambda fields, arrays: fields["seconds"].__setitem__(1, [float("nan")]),
        lambda fields, arrays: fields.update(thumbnail=["32", 18]),
        lambda fields, arrays: fields.clear(),
    ],
)
def test_frames_that_were_not_asked_for_are_refused(change):
    fields, arrays = clip().to_message()
    arrays = list(arrays)
    change(fields, arrays)
    with pytest.raises(ValueError):
        parser()(Message(fields, arrays))


@pytest.mark.parametrize("source", [{"uri": "elsewhere"}, {"bytes": "5"}, {"width": 2**31}, {"media": ["video"]}, None])
def test_columns_of_a_source_that_no_table_can_take_are_refused(source):
    with pytest.raises(ValueError):
        AnswerParser(WANTS, TYPES)(Message({"source": source}))


# What runs in the child


def forges_a_column(call):
    yield HEADER.to_message()
    yield Message({"columns": {"clip_id": "another"}, "thumbnail": [0, 0], "seconds": []}, [np.empty(0, np.uint8)])


def sends_more_than_was_asked_for(call):
    yield HEADER.to_message()
    yield Message("x", [np.zeros(400_000, np.uint8)])


@pytest.mark.parametrize(
    ("task", "reason"),
    [(forges_a_column, "a clip has no column 'clip_id'"), (sends_more_than_was_asked_for, "over the limit of 307200")],
)
def test_a_forged_answer_fails_the_source_and_nothing_else(tmp_path, monkeypatch, task, reason):
    (tmp_path / "film").write_bytes(b"x")
    stage = DecodePass(ProbeSettings(), CutSettings(), ())
    stage.setup()
    try:
        monkeypatch.setattr("stages.scan.decode_pass.SCAN", f"{__name__}:{task.__name__}")
        (part,) = stage(Unit("u", source=Source("s", os.fspath(tmp_path / "film"))))
    finally:
        stage.close()
    assert part.failure.startswith("malformed answer of the decoder: ") and reason in part.failure
    assert part.clips == [] and part.scanned["width"] == 640
