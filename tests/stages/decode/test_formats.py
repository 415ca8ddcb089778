"""Each row of the table of formats, drawn and read back: frames, their order, times, sizes and colours."""

from __future__ import annotations

import numpy as np
import pytest

from stages.decode.fetch import open_seeker
from stages.decode.readers import open_reader
from stages.decode.sources import open_source
from stages.frames import SourceError
from tests.stages.decode.formats import (
    CODECS,
    COLOURS,
    MATRIX,
    ODD,
    PICTURES,
    PIXELS,
    REFUSED,
    Format,
    colours,
    expected,
    number,
    write,
)

pytestmark = pytest.mark.slow

TAKEN = [*CODECS, *PIXELS, *MATRIX, *ODD, *PICTURES]


def upright(shown: np.ndarray, row: Format) -> np.ndarray:
    """The displayed picture as it was drawn: (h, w, 3) RGB."""
    drawn = shown[:, :, ::-1]
    degrees, mirrored = row.turn
    return np.rot90(drawn[:, ::-1] if mirrored else drawn, -(degrees // 90))


def read(path, row):
    """(PTS, seconds, picture as drawn) of every frame, and the header."""
    with open_source(str(path)) as file:
        reader = open_reader(file)
        frames = [(frame.pts, frame.seconds, upright(frame.picture(max(row.size)), row)) for frame in reader]
        assert reader.truncated is None and reader.disordered is None and reader.decode_errors == 0
        return frames, reader.info


@pytest.mark.parametrize("row", TAKEN, ids=[row.name for row in TAKEN])
def test_a_format_gives_its_frames_in_order_at_their_times_in_their_colours(tmp_path, row):
    path = write(tmp_path / "film", row)
    frames, info = read(path, row)
    assert [number(picture) for *_, picture in frames] == list(range(row.frames))
    first = frames[0][1]
    times = [(at - row.times[0]) / 1000 for at in row.times] if row.times else [n / float(row.fps) for n in range(24)]
    assert [at - first for _, at, _ in frames] == pytest.approx(times[: row.frames], abs=row.within)
    if row.levels is not None:
        assert max(np.abs(colours(picture) - expected(row)).max() for *_, picture in frames) <= row.levels
    turned = row.turn[0] in (90, 270)
    width, height = (round(row.size[0] * row.aspect), row.size[1])
    assert (info.width, info.height) == ((height, width) if turned else (width, height))
    end = frames[-1][0] + 1
    with open_source(str(path)) as file:  # as later stages fetch them
        seeker = open_seeker(file, None, 1, lambda decoded: None)
        for index in (17, 18, 3, 23)[: row.frames]:
            pts = frames[index % row.frames][0]
            shown = seeker.frame_at(pts, frames[0][0], end)
            assert shown.pts == pts
            assert number(upright(shown.picture(max(row.size)), row)) == index % row.frames
        seeker.close()


@pytest.mark.parametrize("row", REFUSED, ids=[row.name for row in REFUSED])
def test_a_format_that_is_not_taken_is_refused_with_the_reason_that_the_docs_give(tmp_path, row):
    path = write(tmp_path / "film", row)
    try:
        with open_source(str(path)) as file:
            reader = open_reader(file)
            for _ in reader:
                pass
            reason = reader.disordered
    except SourceError as error:
        reason = str(error)
    assert reason is not None and reason.startswith(row.fails)


def test_every_row_is_another_film_and_the_checks_can_fail(tmp_path):
    names = [row.name for row in (*TAKEN, *REFUSED)]
    assert len({*names}) == len(names)
    assert np.ptp(np.array(COLOURS), axis=0).min() > 200  # a lost plane is far beyond any row's levels
    assert max(row.levels or 0 for row in TAKEN) <= 20
    film = write(tmp_path / "film", Format("mp4", "libx264", options={"preset": "ultrafast"}))
    frames, _ = read(film, wrong := Format("mp4", "libx264", turn=(180, False)))
    assert np.abs(colours(frames[0][2]) - expected(wrong)).max() > 100
    assert [number(picture) for *_, picture in frames] != list(range(24))
