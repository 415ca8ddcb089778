"""Captions that are there already: in the manifest, or beside the source, here or in a store."""

import importlib.util
import json
import os

import fsspec
import pytest
from pydantic import ValidationError

from stages.base import SettingsError
from stages.captions.settings import CaptionSettings
from stages.captions.stage import Caption
from tests.stages.captions.made import rows_of, run, unit_of


def captions(columns, uri="films/a.mp4", **settings):
    """The rows of two clips of a source with these columns in its manifest."""
    stage = Caption(CaptionSettings.model_validate(settings))
    return rows_of(run(stage, [unit_of([1, 2], stage, manifest=columns, uri=uri)]), stage.table)


def test_the_manifest_s_caption_is_that_of_every_clip_of_the_source():
    rows = captions({"caption": "  A dog runs over the wet grass. "})
    assert [row["status"] for row in rows.values()] == ["done", "done"]
    assert rows[1]["caption"] == rows[2]["caption"] == "A dog runs over the wet grass."
    assert rows[1]["caption_words"] == 7
    assert rows[1]["caption_source"] == "manifest"
    assert rows[1]["caption_language"] == "en"
    assert rows[1]["captions_model"] is None
    assert rows[1]["caption_seed"] is None


@pytest.mark.parametrize("empty", [None, "", "  ", float("nan")])
def test_a_clip_without_a_caption_is_failed_with_the_reason(empty):
    rows = captions({"caption": empty})
    assert rows[1]["status"] == "failed"
    assert rows[1]["reason"] == "the manifest has no 'caption' for this source; add it there, and the next run takes it"


def test_what_is_no_text_is_no_caption():
    assert "holds 3, not a text" in captions({"caption": 3})[1]["reason"]


def test_several_captions_come_from_several_columns():
    columns = {"alt": "A dog.", "about": "A dog runs over the wet grass."}
    rows = captions(columns, manifest={"column": {"short": "alt", "long": "about"}})
    assert (rows[1]["caption_short"], rows[1]["caption_long"]) == (columns["alt"], columns["about"])
    assert rows[1]["caption_long_words"] == 7
    rows = captions(columns | {"alt": None}, manifest={"column": {"short": "alt", "long": "about"}})
    assert (
        rows[1]["reason"]
        == "the manifest has no 'alt' for this source; add it there, and the next run takes it (caption 'short')"
    )


def test_another_table_s_captions_stand_beside_the_first_s():
    rows = captions({"caption": "A dog."}, **{"as": "people"})
    assert rows[1]["people_caption"] == "A dog."
    assert "people_model" in rows[1]


@pytest.mark.parametrize("where", ["local", "memory", "file uri"])
def test_a_file_beside_the_source_holds_its_caption(tmp_path, where):
    folder = {"local": str(tmp_path), "memory": "memory://films", "file uri": tmp_path.as_uri()}[where]
    store, path = fsspec.core.url_to_fs(folder)
    store.pipe_file(f"{path}/a.txt", "A dog runs.\n".encode("utf-8-sig"))
    store.pipe_file(f"{path}/b.json", json.dumps({"caption": "A cat sits.", "other": 1}).encode())
    text = {"manifest": {"sidecar": ".txt"}}
    keyed = {"manifest": {"sidecar": ".json"}}
    assert captions({}, f"{folder}/a.mp4", **text)[1]["caption"] == "A dog runs."
    assert captions({}, f"{folder}/b.tar.mkv", **keyed)[1]["status"] == "failed"
    assert captions({}, f"{folder}/b.mkv", **keyed)[1]["caption"] == "A cat sits."
    assert captions({"caption": "The manifest's."}, f"{folder}/a.mp4", **text)[1]["caption"] == "The manifest's."
    assert "no .txt file" in captions({}, f"{folder}/c.mp4", **text)[1]["reason"]


@pytest.mark.parametrize(
    ("ending", "data", "why"),
    [
        (".json", b"{", "is no JSON"),
        (".json", b"[1]", "must hold a JSON object"),
        (".json", b"[" * 100_000, "is no JSON"),
        (".txt", b"\xff\xfe\x00", "is no UTF-8 text"),
        (".txt", b"x" * (2**20 + 1), "more than"),
    ],
)
def test_a_damaged_file_beside_the_source_is_the_clip_s_reason(tmp_path, ending, data, why):
    (tmp_path / f"a{ending}").write_bytes(data)
    row = captions({}, str(tmp_path / "a.mp4"), manifest={"sidecar": ending})[1]
    assert row["status"] == "failed"
    assert why in row["reason"]
    assert len(row["reason"]) <= 500


def test_a_pipe_beside_the_source_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    row = captions({}, str(tmp_path / "a.mp4"), manifest={"sidecar": ".txt"})[1]
    assert "not a regular file but a pipe" in row["reason"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"source": "server"}, "needs its settings"),
        ({"server": {"base_url": "http://a/v1", "model": "m"}}, "not among the sources"),
        ({"source": "manifest", "prompts": {"a": "x", "b": "y"}}, "must say which column is which"),
        ({"manifest": {"column": {"a": "x", "b": "y"}, "sidecar": ".txt"}}, "several captions need"),
        ({"prompts": {"Short": "x"}}, "small letters"),
        ({"manifest": {"column": {"x": "a", "x_words": "b"}}}, "'caption_x_words' twice"),
        ({"source": "server", "server": {"base_url": "localhost:8000", "model": "m"}}, "expected an address"),
        ({"source": "server", "server": {"base_url": "http://me:key@host/v1", "model": "m"}}, "no user or key"),
        ({"source": "server", "server": {"base_url": "http://h/v1/chat/completions", "model": "m"}}, "leave"),
        ({"source": "server", "server": {"base_url": "http://h:x/v1", "model": "m"}}, "no address"),
        ({"source": "server", "server": {"base_url": "http://h", "model": "m", "extra_body": {"stream": 1}}}, "stream"),
        ({"frames": {"positions": [0.5, 0.1]}}, "rising"),
    ],
)
def test_settings_that_can_not_work_are_refused(settings, why):
    with pytest.raises(ValidationError, match=why):
        CaptionSettings.model_validate(settings)


def test_where_and_how_fast_a_server_is_asked_decides_no_result():
    server = {"base_url": "http://a/v1", "model": "m"}
    one = CaptionSettings.model_validate({"source": "server", "server": server})
    other = {"base_url": "http://b/v1", "concurrency": 3, "tries": 1, "api_key_env": "KEY"}
    two = CaptionSettings.model_validate({"source": "server", "server": server | other, "batch_clips": 5})
    assert one.model_dump() == two.model_dump()
    assert (
        one.model_dump()
        != CaptionSettings.model_validate({"source": "server", "server": server, "seed": 1}).model_dump()
    )


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"py3langid: pip install 'clipmill\[caption\]'"):
        Caption(CaptionSettings()).check()
