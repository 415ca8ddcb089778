"""Answers stay in the cache from the moment they arrive until their rows are committed."""

import pickle

import pytest

from stages.base import Context
from stages.captions.answer_cache import AnswerCache
from stages.captions.answers import Answer
from stages.captions.stage import Caption
from tests.caption_server import CaptionServer
from tests.stages.captions.made import rows_of, run, served, unit_of


@pytest.mark.parametrize("store", ["path", "file uri", pytest.param("bucket", marks=pytest.mark.slow)])
def test_answers_are_kept_until_their_rows_are_committed(tmp_path, store, request):
    folder = tmp_path / "a catalog"
    catalog = request.getfixturevalue("bucket") + "/catalog" if store == "bucket" else str(folder)
    if store == "file uri":
        catalog = folder.as_uri()
    answer = Answer("A dog.", "server", "stop", None, "v1")
    cache = AnswerCache(catalog, "captions")
    cache.open()
    assert cache.get("a") == {}
    cache.put("a", {"k": answer})
    cache.put("a", {"k": answer, "m": answer})
    cache.put("b", {"k": answer})
    if store != "bucket":
        assert len(list(folder.rglob("*.json"))) == 2
    later = pickle.loads(pickle.dumps(AnswerCache(catalog, "captions")))
    later.open()
    assert later.get("a") == {"k": answer, "m": answer}
    AnswerCache(catalog, "captions").clear(["a", "never there"])
    last = AnswerCache(catalog, "captions")
    last.open()
    assert last.clip_ids() == {"b"}
    assert last.get("a") == {}
    assert last.get("b") == {"k": answer}


def test_what_a_kill_left_half_written_is_no_answer(tmp_path):
    cache = AnswerCache(str(tmp_path), "captions")
    cache.open()
    folder = tmp_path / "_answers" / "captions"
    (folder / ".a.json.0123456789abcdef.part").write_text('{"k": {"te')
    (folder / "b.json").write_text("no JSON")
    cache.open()
    assert cache.get("a") == cache.get("b") == {}
    assert [path.name for path in folder.iterdir()] == ["b.json"]


def test_a_stage_travels_to_its_worker_and_takes_up_what_another_left(tmp_path):
    with CaptionServer() as server:
        first = Caption(served(server.url))
        run(first, [unit_of([1, 2], first)], tmp_path)
        again = Caption(served(server.url))
        again.prepare(Context(str(tmp_path)))
        rows = rows_of(run(pickle.loads(pickle.dumps(again)), [unit_of([1, 2, 3], again)]))
        assert sorted(rows) == [1, 2, 3]
        assert len(server.answered) == len(set(server.answered)) == 3
