"""A contact sheet shows every hit's picture in its place, and its text within its tile."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.query.contact_sheet import COLUMNS, LINE, MARGIN, TILE, TITLE, check_sheet_name, draw_contact_sheet


def place(number: int) -> tuple[slice, slice]:
    """Rows and columns of a thumbnail's place on a sheet of one full row or more."""
    width, height = TILE
    left = MARGIN + number % COLUMNS * (width + MARGIN)
    top = TITLE + number // COLUMNS * (height + 2 * LINE + MARGIN)
    return slice(top, top + height), slice(left, left + width)


@given(
    sizes=st.lists(st.tuples(st.integers(30, 500), st.integers(30, 500)), min_size=COLUMNS, max_size=12),
    data=st.data(),
)
@settings(max_examples=20, deadline=None)
def test_pictures_of_any_shape_stand_whole_in_the_middle_of_their_places(sizes, data):
    colours = [tuple(data.draw(st.integers(1, 3)) * 80 for _ in range(3)) for _ in sizes]  # BGR
    tiles = [
        ((f"{i}", "name"), np.full((*size, 3), colour, np.uint8))
        for i, (size, colour) in enumerate(zip(sizes, colours, strict=True))
    ]
    sheet = draw_contact_sheet("words", tiles)
    for number, ((height, width), colour) in enumerate(zip(sizes, colours, strict=True)):
        spot = sheet[place(number)]
        assert tuple(spot[TILE[1] // 2, TILE[0] // 2, ::-1]) == colour
        share = min(TILE[0] / width, TILE[1] / height)
        shown = (spot == np.array(colour[::-1], np.uint8)).all(-1).sum()
        expected = max(1, round(width * share)) * max(1, round(height * share))
        assert shown == expected or colour == (224, 224, 222)


def test_a_clip_without_a_thumbnail_leaves_its_place_empty_and_the_next_in_theirs():
    red = np.full((16, 24, 3), (0, 0, 240), np.uint8)
    tiles = [((str(i), "name"), None if i == 1 else red) for i in range(5)]
    sheet = draw_contact_sheet("words", tiles)
    assert [tuple(sheet[place(i)][80, 120]) == (240, 0, 0) for i in range(5)] == [True, False, True, True, True]


@pytest.mark.parametrize("name", ["x" * 400, "a\nb\x1b[31m.mp4", "фильм-电影.mp4", ""])
def test_text_of_any_length_and_script_stays_within_its_tile(name):
    plain = draw_contact_sheet("words", [(("1", ""), None)] * 5)
    named = draw_contact_sheet("words", [(("1", name if i == 2 else ""), None) for i in range(5)])
    assert named.shape == plain.shape
    rows, columns = place(2)
    changed = np.argwhere((named != plain).any(-1))
    assert all(rows.stop <= y < rows.stop + 2 * LINE + MARGIN for y, _ in changed)
    assert all(columns.start - 2 <= x < columns.stop + 2 for _, x in changed)  # edges of letters are soft
    assert len(changed) > 0 or not name


def test_no_hits_make_a_sheet_with_its_heading_alone():
    assert draw_contact_sheet("nothing like it", []).shape[0] < TITLE + TILE[1]
    assert (draw_contact_sheet("nothing like it", []) < 100).any()


@pytest.mark.parametrize("name", ["sheet.txt", "sheet", "no/such/folder/sheet.png"])
def test_a_name_that_cannot_be_written_is_told_before_any_work(name):
    with pytest.raises(UserError, match=name):
        check_sheet_name(name)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_a_sheet_is_written_whole_in_the_form_its_name_says(tmp_path, ending):
    import duckdb

    from curate.query.contact_sheet import write_contact_sheet
    from curate.query.hit import Hit

    picture = np.full((72, 128, 3), (30, 160, 220), np.uint8)
    sql = duckdb.connect()
    sql.execute("CREATE TABLE thumbnails (clip_id TEXT, jpeg BLOB)")
    sql.execute("INSERT INTO thumbnails VALUES ('a', ?)", [cv2.imencode(".jpg", picture)[1].tobytes()])
    hits = [Hit(1, 0.5, "a", "s3://films/a.mp4", 0.0, 2.5, "kept"), Hit(2, 0.4, "b", "b.mp4", 0.0, 0.0, "kept")]
    path = tmp_path / f"sheet{ending}"
    write_contact_sheet(str(path), sql, [(hit.clip_id, hit.labels) for hit in hits], "words")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    drawn = cv2.imread(str(path))
    assert np.abs(drawn[TITLE + 80, MARGIN + 120].astype(int) - (30, 160, 220)).max() < 12
