"""`clipmill sheet`: which clips are shown, and that their pictures and values are in the file."""

import base64
import re

import cv2
import numpy as np
import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect
from curate.errors import UserError
from curate.query.sheet import SheetClip, chosen_clips, write_sheet
from tests.catalog_rows import commit_rows

CLIPS = 250


def jpeg(level):
    return cv2.imencode(".jpg", np.full((40, 60, 3), level, np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """250 clips with motion 0 to 249, of which a gate drops the lower half; one has a hostile name and no picture."""
    catalog = Catalog.open_or_create(str(tmp_path_factory.mktemp("sheet") / "catalog"))
    rows, pictures = [], []
    for n in range(CLIPS):
        clip = {"clip_id": f"{n * 7919 % CLIPS:032x}", "source_id": "s", "uri": "/films/a.mp4", "motion": float(n)}
        rows.append(clip | {"start_s": 1.0, "end_s": 3.0})
        pictures.append({"clip_id": clip["clip_id"], "source_id": "s", "width": 60, "height": 40, "jpeg": jpeg(n)})
    rows[-1]["uri"] = "/films/<script>alert(1).mp4"
    types = {"clips": {"motion": "double"}}
    source = {"source_id": "s", "uri": "/films/a.mp4", "status": "done", "settings": "x"}
    with Ledger(catalog, "sources", "source_id", "a" * 32) as ledger:
        commit_rows(ledger, {"sources": [source], "clips": rows, "thumbnails": pictures[:-1]}, types)
    catalog.put_gates("ingest", [Gate(name="moving", where="motion >= 125")], "run")
    return catalog


def motions(catalog, **choice):
    wanted = {"where": None, "by": None, "descending": False, "most": 100} | choice
    with connect(catalog) as sql:
        total, clips = chosen_clips(sql, **wanted)
    return total, [clip.values["motion"] for clip in clips]


def test_a_sheet_by_a_column_shows_its_whole_range_evenly(catalog):
    total, found = motions(catalog, by="motion", most=10)
    assert total == CLIPS
    assert found[0] == 0 and found[-1] == 249 and found == sorted(found) and len(found) == 10
    assert {int(step) for step in np.diff(found)} <= {27, 28}


def test_descending_begins_with_the_greatest(catalog):
    assert motions(catalog, by="motion", descending=True, most=3)[1] == [249, 124, 0]


@pytest.mark.parametrize("most", [1, 2, 99, 100, 249, 250, 1000])
def test_as_many_clips_are_shown_as_asked_for_or_there_are(catalog, most):
    found = motions(catalog, by="motion", most=most)[1]
    assert len(found) == len(set(found)) == min(most, CLIPS)


def test_without_a_column_the_choice_is_spread_over_the_ids_and_always_the_same(catalog):
    first, second = motions(catalog, most=20)[1], motions(catalog, most=20)[1]
    assert first == second
    assert 60 < float(np.mean(first)) < 190


def test_the_page_holds_every_picture_verdict_and_value_and_no_markup_from_names(catalog, tmp_path, capsys):
    page = tmp_path / "sheet.html"
    assert write_sheet(catalog.uri, str(page), "motion >= 124", "motion", False, 200) == 0
    text = page.read_text()
    assert text.count("<figure") == 126 and text.count("dropped by moving") == 1
    assert text.count("data:image/jpeg;base64,") == 125  # one clip has no thumbnail
    assert "<script>alert" not in text and "&lt;script&gt;" in text
    assert "http" not in text
    first = base64.b64decode(re.search(r"base64,([^\"]+)", text)[1])
    assert abs(int(cv2.imdecode(np.frombuffer(first, np.uint8), 0).mean()) - 124) <= 2
    assert "126 clips WHERE motion >= 124 by motion" in capsys.readouterr().err


def test_the_picture_is_drawn(catalog, tmp_path):
    write_sheet(catalog.uri, str(tmp_path / "sheet.png"), None, "motion", False, None)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] > 1000


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"output": "x.txt"}, "ends with"),
        ({"output": "no/such/x.html"}, "no folder"),
        ({"by": "moton"}, "--by moton: clips have no such column"),
        ({"where": "motion >"}, "syntax error"),
        ({"where": "verdict = kept"}, "a text goes in single quotes: 'kept'"),
        ({"where": "motion > 900"}, "nothing to show"),
        ({"where": "true) UNION SELECT * FROM clips --"}, "rror"),
        ({"most": 500}, "HTML"),
    ],
)
def test_a_wrong_argument_is_one_line_and_no_file(catalog, tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    wanted = {"output": "x.png", "where": None, "by": None, "descending": False, "most": None} | given
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        write_sheet(catalog.uri, **wanted)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_tile_says_the_verdict_and_every_value_in_whole_words():
    values = {"motion": 0.0662, "luma_mean": 178.9, "duplicate_keep": True, "static": None}
    clip = SheetClip("c", "films/a.mp4", 1, 2.5, "dropped", ["cut.min_seconds", "moving"], values)
    first, *lines, last = clip.labels
    assert first == "dropped by cut.min_seconds, moving" and last == "a.mp4 1.00-2.50 s"
    assert " ".join(lines).replace("\u00a0", " ") == "motion 0.0662 luma_mean 179 duplicate_keep True static NULL"
    assert all(len(line) <= 38 for line in lines)
