"""`clipmill browse` over HTTP: what its page is told of clips, how it pages, plays, tries and exports."""

from __future__ import annotations

import io
import json
import os
import signal
import time

import av
import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.views import connect
from tests.curate.audit.browse.conftest import HOSTILE, SAID
from tests.curate.audit.browse.serving import serving
from tests.curate.running import ask, clipmill


def truth(browsed, query):
    return ask(browsed / "catalog", query)


def test_the_address_stands_on_one_line_with_a_token_that_differs_each_time(served, browsed):
    with serving(browsed / "catalog") as other:
        tokens = {each.root.strip("/") for each in (served, other)}
    assert len(tokens) == 2 and all(len(token) >= 32 for token in tokens)
    assert other.printed == "" and other.said.count("\n") == 1


def test_a_port_can_be_chosen_and_one_that_is_taken_is_one_line(served, browsed):
    done = clipmill_browse(browsed, "--port", str(served.port))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and f"--port {served.port}" in done.stderr
    assert clipmill_browse(browsed, "--port", "70000").returncode == 2


def test_a_place_without_a_catalog_and_too_little_memory_are_one_line(browsed, tmp_path):
    done = clipmill_browse(tmp_path)
    assert done.returncode == 2 and "no catalog" in done.stderr.splitlines()[-1]


def clipmill_browse(folder, *arguments):
    import subprocess
    import sys

    command = [sys.executable, "-m", "curate.cli", "browse", "--catalog", str(folder / "catalog"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_schema_names_every_view_and_column_of_clipmill_sql(served, browsed):
    schema = served.ask("schema")
    with connect(Catalog.open(str(browsed / "catalog"))) as sql:
        names = {row[0] for row in sql.execute("SHOW TABLES").fetchall()}
        columns = [[row[0], row[1]] for row in sql.execute("DESCRIBE clips").fetchall()]
    assert set(schema["tables"]) == names and next(iter(schema["tables"])) == "clips"
    assert [[each["name"], each["type"]] for each in schema["tables"]["clips"]] == columns
    assert [gate["name"] for gate in schema["gates"]][-2:] == ["ingest.bright", "ingest.moving"]
    assert (schema["clips"], schema["kept"]) == truth(
        browsed, "SELECT count(*), count(*) FILTER (verdict = 'kept') FROM clips"
    )[0]


@pytest.mark.parametrize(
    ("filters", "where"),
    [
        ([("verdict", "=", "dropped")], "verdict = 'dropped'"),
        ([("motion", ">", "1.5"), ("verdict", "!=", "dropped")], "motion > 1.5 AND verdict <> 'dropped'"),
        ([("uri", "contains", "FILM_1")], "uri LIKE '%film_1%'"),
        ([("uri", "contains", "'; DROP")], "uri LIKE '%DROP%'"),
        ([("failed_gates", "contains", "bright")], "list_contains(failed_gates, 'bright')"),
        ([("dropped_by", "is unknown", "")], "dropped_by IS NULL"),
        ([("duplicate_of", "is known", "")], "duplicate_of IS NOT NULL"),
        ([("duplicate_keep", "=", "true")], "duplicate_keep"),
        ([("frames", "<=", "36")], "frames <= 36"),
    ],
)
def test_filters_choose_the_clips_of_the_same_condition_in_sql(served, browsed, filters, where):
    given = [{"column": column, "operator": operator, "value": value} for column, operator, value in filters]
    wanted = {row[0] for row in truth(browsed, f"SELECT clip_id FROM clips WHERE {where}")}
    assert {clip["clip_id"] for clip in served.pages({"filters": given})} == wanted
    assert served.ask("count", selection={"filters": given})["clips"] == len(wanted)


@pytest.mark.parametrize("order", ["motion", "uri", "dropped_by", "failed_gates", "frames"])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_follow_one_another_in_order_each_clip_once(served, browsed, monkeypatch, order, descending):
    sort = f"{order} {'DESC' if descending else 'ASC'} NULLS LAST"
    wanted = [str(row[0]) for row in truth(browsed, f"SELECT {order}::VARCHAR FROM clips ORDER BY {sort}")]
    first = served.ask("page", selection={"order": order, "descending": descending})["clips"]
    found = list(first[:1])
    while len(found) < len(wanted):  # from each clip on, as if pages had one clip
        page = served.ask("page", selection={"order": order, "descending": descending}, after=found[-1]["row"])
        found.append(page["clips"][0])
    assert len({clip["clip_id"] for clip in found}) == len(wanted)
    by_id = dict(truth(browsed, f"SELECT clip_id, {order}::VARCHAR FROM clips"))
    assert [str(by_id[clip["clip_id"]]) for clip in found] == wanted
    last = served.ask("page", selection={"order": order, "descending": descending}, after=found[-1]["row"])
    assert last == {"clips": [], "next": None}


@pytest.mark.parametrize(
    ("question", "given", "said"),
    [
        ("page", {"selection": {"filters": [{"column": "moton", "operator": "=", "value": "1"}]}}, "'motion'"),
        (
            "page",
            {"selection": {"filters": [{"column": "motion", "operator": "=", "value": "x"}]}},
            "Could not convert",
        ),
        ("page", {"selection": {"filters": [{"column": "motion", "operator": "; DROP", "value": "x"}]}}, "operator"),
        ("page", {"selection": {"order": "nothing"}}, "nothing"),
        ("page", {"selection": {"query": "SELECT uri FROM clips"}}, "clip_id"),
        ("page", {"selection": {"unknown": 1}}, "unknown"),
        ("page", {"selection": 7}, "selection"),
        ("rows", {"text": "SELECT moton FROM clips"}, "there is no column moton; did you mean motion?"),
        ("rows", {"text": "SELECT file FROM clips"}, "there is no column file; did you mean uri?"),
        ("rows", {"text": "SELECT * FROM clip"}, "there is no table clip; did you mean clips?"),
        ("try", {"gate": {"where": "moton > 1"}}, "did you mean motion?"),
        ("rows", {"txt": "SELECT 1"}, "rows takes no txt"),
        ("try", {"gate": {"where": "motion >"}}, "syntax error"),
        ("try", {"gate": {"where": "motion > 1", "instead": "ingest.movin"}}, "did you mean 'ingest.moving'"),
        ("clip", {"clip_id": "nothing"}, "no clip 'nothing'"),
        ("column", {"name": "nothing"}, "no column 'nothing'"),
    ],
)
def test_a_wrong_question_is_one_line_that_says_what_is_wrong(served, question, given, said):
    refusal = served.refused(question, **given)
    assert said in refusal and "\n" not in refusal


def test_a_clip_tells_why_it_was_dropped_its_captions_and_its_duplicates(served, browsed):
    ((dropped,),) = truth(browsed, "SELECT clip_id FROM clips WHERE failed_gates = ['bright'] LIMIT 1")
    told = served.ask("clip", clip_id=dropped)
    says = {gate["name"]: gate for gate in told["gates"]}
    assert says["ingest.bright"]["says"] == "fails" and says["ingest.bright"]["drops"]
    assert says["ingest.bright"]["values"]["luma_mean"] < 116
    assert says["ingest.moving"]["says"] == "passes" and not says["ingest.moving"]["drops"]
    ((twin, copy),) = truth(
        browsed,
        "SELECT min(clip_id), max(clip_id) FROM clips WHERE duplicate_count = 2 GROUP BY duplicate_cluster LIMIT 1",
    )
    told = served.ask("clip", clip_id=twin)
    assert {each["name"]: each["text"] for each in told["captions"]}["caption_short"] == SAID
    assert len(told["captions"]) == 2
    (group,) = told["duplicates"]
    assert [clip["clip_id"] for clip in group["clips"]] == [copy] and group["duplicate_kind"] == "exact"
    assert told["source"]["status"] == "done" and told["clip"]["clip_id"] == twin


def test_thumbnails_are_those_of_the_catalog(served, browsed):
    pictures = dict(truth(browsed, "SELECT clip_id, jpeg FROM thumbnails"))
    clips = served.pages({})
    assert len(clips) == len(pictures) > 3
    for clip in clips:
        reply = served.get(f"thumbnail/{clip['place']}")
        assert reply.headers["content-type"] == "image/jpeg" and reply.body == pictures[clip["clip_id"]]
    assert served.get(f"thumbnail/{1 << 50}").status in (400, 404)


def test_a_clip_plays_exactly_its_span_and_in_ranges(served, browsed):
    rows = truth(browsed, "SELECT clip_id, frames, end_s - start_s, uri FROM clips ORDER BY scene DESC, uri LIMIT 3")
    assert any(uri.endswith(HOSTILE) for _, _, _, uri in rows)
    for clip_id, frames, seconds, _ in rows:
        reply = served.get(f"span/{clip_id}.mp4")
        assert reply.status == 200 and reply.headers["content-type"] == "video/mp4"
        with av.open(io.BytesIO(reply.body)) as film:
            shown = list(film.decode(video=0))
        assert len(shown) == frames and shown[0].pts == 0
        last = float((shown[-1].pts + shown[-1].duration) * shown[-1].time_base)
        assert last == pytest.approx(seconds, abs=1e-3)
        part = served.get(f"span/{clip_id}.mp4", Range="bytes=100-199")
        assert part.status == 206 and part.body == reply.body[100:200]
        assert part.headers["content-range"] == f"bytes 100-199/{len(reply.body)}"
        assert served.get(f"span/{clip_id}.mp4", Range="bytes=-50").body == reply.body[-50:]
        assert served.get(f"span/{clip_id}.mp4", Range="bytes=50-").body == reply.body[50:]
        for wrong in ("bytes=0-" + "9" * 5000, "bytes=a-b", "bytes=0-1,2-3", "items=0-1", "bytes=-"):
            assert served.get(f"span/{clip_id}.mp4", Range=wrong).body == reply.body
        assert served.get(f"span/{clip_id}.mp4", Range=f"bytes={len(reply.body)}-").status == 416
    assert served.get("span/nothing.mp4").status == 400


def test_a_gate_is_tried_as_clipmill_gates_tries_it_and_is_not_in_force(served, browsed):
    gate = {"where": "luma_mean >= 114", "instead": "ingest.bright"}
    found = served.ask("try", gate=gate)
    ((now, then, back),) = truth(
        browsed,
        "SELECT count(*) FILTER (verdict = 'kept'), count(*) FILTER (luma_mean >= 114 AND motion > 0), "
        "count(*) FILTER (luma_mean >= 114 AND luma_mean < 116 AND motion > 0) FROM clips",
    )
    counts = {name: each["clips"] for name, each in found.items()}
    assert (counts["kept now"], counts["kept then"], counts["newly kept"]) == (now, then, back) and back > 0
    chosen = served.pages({"gate": gate, "change": "newly kept"})
    assert len(chosen) == back and {clip["verdict"] for clip in chosen} == {"dropped"}
    assert served.ask("schema")["kept"] == now
    command = clipmill(
        "gates", "try", "luma_mean >= 114", "--instead", "ingest.bright", "--catalog", browsed / "catalog"
    )
    assert f"newly kept           │     {back}" in command.stdout or str(back) in command.stdout


def test_what_is_shown_is_exported_as_sql_and_as_a_command_that_a_shell_takes(served, browsed):
    import shlex

    selection = {
        "filters": [{"column": "uri", "operator": "contains", "value": "'; DROP"}],
        "query": "SELECT clip_id FROM clips WHERE motion > 0; ",
        "gate": {"where": "luma_mean >= 114", "instead": "ingest.bright"},
        "change": "kept then",
    }
    shown = {clip["clip_id"] for clip in served.pages(selection)}
    found = served.ask("export", selection=selection)
    assert shown and {row[0] for row in truth(browsed, found["sql"])} == shown
    words = shlex.split(found["dataset"])
    assert words[:4] == ["clipmill", "dataset", "create", "NAME"] and words[-1] == found["sql"]


def test_columns_tell_their_range_or_their_most_frequent_values(served, browsed):
    verdicts = dict(served.ask("column", name="verdict")["common"])
    assert verdicts == dict(truth(browsed, "SELECT verdict, count(*) FROM clips GROUP BY 1"))
    least, _, greatest = served.ask("column", name="motion")["range"]
    assert (least, greatest) == truth(browsed, "SELECT min(motion), max(motion) FROM clips")[0]
    assert dict(served.ask("column", name="failed_gates")["common"])["bright"] > 0


def test_a_query_gives_its_rows_and_says_when_there_are_more(served):
    found = served.ask("rows", text="SELECT clip_id, 1 / 3 AS third FROM clips; ")
    assert found["columns"] == ["clip_id", "third"] and found["clips"] and not found["more"]
    many = served.ask("rows", text="SELECT x, repeat('y', 9000) FROM range(5000) AS t(x)")
    assert many["more"] and len(many["rows"]) == 1000 and len(many["rows"][0][1]) == 2001
    odd = served.ask(
        "rows", text="SELECT 'nan'::DOUBLE, 9007199254740993, DATE '2026-01-02', [1, NULL], '\\x00a'::BLOB"
    )
    assert odd["rows"] == [[None, "9007199254740993", "2026-01-02", [1, None], "<2 bytes>"]]


def test_a_query_that_takes_long_is_stopped_and_others_are_answered_meanwhile(served):
    import threading

    endless = {"text": "SELECT count(*) FROM range(10000000000) a, range(10000) b", "number": "mine"}
    replies = []
    asking = threading.Thread(target=lambda: replies.append(served.post("ask/rows", endless)))
    asking.start()
    assert served.ask("count", selection={})["clips"] > 0
    while asking.is_alive():  # a stop that comes before the query has begun is too early
        served.post("stop", {"number": "mine"})
        asking.join(0.2)
    assert replies[0].status == 400 and "stopped" in replies[0].json["error"]


def test_a_process_of_queries_that_dies_is_replaced(browsed):
    with serving(browsed / "catalog") as served:
        clips = served.ask("schema")["clips"]
        os.kill(served.child(), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while (reply := served.post("ask/schema")).status != 200:
            assert "started again" in reply.json["error"] and time.monotonic() < deadline
        assert reply.json["answer"]["clips"] == clips


def test_the_server_takes_its_child_along_even_when_it_is_killed(browsed):
    import psutil

    with serving(browsed / "catalog") as served:
        child = psutil.Process(served.child())
        served.process.kill()
    child.wait(30)
    with serving(browsed / "catalog") as served:
        children = psutil.Process(served.process.pid).children(recursive=True)
    psutil.wait_procs(children, 30)
    assert served.process.returncode in (0, -signal.SIGTERM) and not any(each.is_running() for each in children)


def test_a_catalog_that_changes_is_noticed_and_read_again(browsed, tmp_path, monkeypatch):
    import shutil

    from curate.audit.browse.changes import Changes

    shutil.copytree(browsed / "catalog", tmp_path / "catalog")
    catalog = Catalog.open(str(tmp_path / "catalog"))
    with serving(tmp_path / "catalog") as served:
        before = served.ask("schema")["kept"]
        monkeypatch.setattr("curate.audit.browse.changes.EVERY_SECONDS", 0.0)
        versions = catalog.snapshot()
        changes = Changes(catalog, lambda: versions)
        assert not changes.seen()
        catalog.put_gates("ingest", [Gate(name="all", where="motion > 0")], None)
        deadline = time.monotonic() + 30
        while not changes.seen():
            assert time.monotonic() < deadline
        assert served.ask("schema")["kept"] == before  # pages do not change under the reader
        assert served.post("reload").status == 200
        assert served.ask("schema")["kept"] > before


def test_words_without_embeddings_say_what_to_run(served):
    reply = served.post("search", {"text": "a star"})
    assert reply.status == 400 and "run a recipe with the stage `embed` first" in reply.json["error"]


def test_without_its_packages_the_command_says_what_to_install(browsed):
    import subprocess
    import sys

    code = "import sys; sys.modules['uvicorn'] = None; from curate.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "browse", "--catalog", str(browsed / "catalog")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'clipmill[browse]'" in done.stderr


def test_answers_hold_json_alone(served):
    assert json.loads(served.post("ask/schema").body)["changed"] is False
