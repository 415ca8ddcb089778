"""Manifests through the command line: names, types over the whole file, columns that widen, what can't be reached."""

import http.server
import json
import threading

import numpy as np
import pytest
from deltalake import DeltaTable

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.cli.main import main
from tests.curate.running import ask, pipelines
from tests.hostile import moving_square, write_video

pytestmark = pytest.mark.slow

RECIPE = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0}
      - cut: {min_seconds: 0.5, max_seconds: 20}
      - measure: [motion]
"""
DIM = 0.1  # of a picture: what a film that fades in to it shows is a transition from its first frame to its last


@pytest.fixture
def films(tmp_path):
    """A folder with two films and room for manifests."""
    for name in ("a0.mp4", "a1.mp4"):
        write_video(tmp_path / name, moving_square(24, 96, 72))
    return tmp_path


@pytest.fixture
def ingest(tmp_path, capsys):
    """`clipmill run ingest` on inputs: gives (exit code, what it printed)."""
    file = pipelines(tmp_path, RECIPE)

    def run(*inputs, catalog="catalog"):
        command = ["run", "ingest", "--catalog", tmp_path / catalog, "--pipelines", file, "--engine", "inline"]
        code = main([str(word) for word in [*command, "--input", *inputs]])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def sql(catalog, query, capsys, form):
    assert main(["sql", query, "--catalog", str(catalog), "--format", form]) == 0
    return capsys.readouterr().out


def test_a_fraction_behind_the_first_megabyte_makes_a_column_of_fractions(films, ingest):
    filler = "".join(f"absent{i}.mp4,{'long caption ' * 4000},1,\n" for i in range(40))
    (films / "late.csv").write_text("path,caption,score,note\n" + filler + "a0.mp4,c,0.5,first words\n")
    assert (films / "late.csv").stat().st_size > 3 << 19
    assert ingest(films / "late.csv")[0] == 1  # the absent ones
    query = "SELECT status, score, typeof(score), note, count(*) FROM sources GROUP BY ALL ORDER BY score"
    assert ask(films / "catalog", query) == [
        ("done", 0.5, "DOUBLE", "first words", 1),
        ("failed", 1.0, "DOUBLE", None, 40),
    ]


@pytest.mark.parametrize("first", ["10", "007"])
def test_a_second_file_widens_the_stored_column(films, ingest, first):
    (films / "first.csv").write_text(f"path,score\na0.mp4,{first}\n")
    (films / "second.csv").write_text("path,score\na1.mp4,10.5\n")
    assert ingest(films / "first.csv")[0] == ingest(films / "second.csv")[0] == 0
    kept = [("10", 10.0), ("10.5", 10.5)] if first == "10" else [("007", "007"), ("10.5", "10.5")]
    assert ask(films / "catalog", "SELECT score FROM sources ORDER BY uri") == [(value,) for _, value in kept]
    assert main(["verify", "--catalog", str(films / "catalog")]) == 0


def test_what_a_widened_table_holds_is_plain_delta_at_both_versions(films, ingest):
    (films / "first.csv").write_text("path,score\na0.mp4,10\n")
    (films / "second.csv").write_text("path,score\na1.mp4,10.5\n")
    ingest(films / "first.csv")
    before = Catalog.open(str(films / "catalog")).snapshot()
    ingest(films / "second.csv")
    table = DeltaTable(films / "catalog" / "sources")
    assert sorted(table.to_pyarrow_table(columns=["score"])["score"].to_pylist()) == [10.0, 10.5]
    assert not table.protocol().reader_features
    with connect(Catalog.open(str(films / "catalog")), at=before) as earlier:
        assert earlier.execute("SELECT score, typeof(score) FROM sources").fetchall() == [(10, "BIGINT")]


def test_a_stored_number_that_is_no_floating_point_number_stops_the_run_and_stays(films, ingest):
    (films / "first.csv").write_text("path,id\na0.mp4,9007199254740993\n")
    (films / "second.csv").write_text("path,id\na1.mp4,10.5\n")
    ingest(films / "first.csv")
    code, said = ingest(films / "second.csv")
    assert code == 2 and "column 'id' of sources can't be widened" in said and said.count("\n") == 1
    assert ask(films / "catalog", "SELECT id FROM sources") == [(9007199254740993,)]
    assert main(["verify", "--catalog", str(films / "catalog")]) == 0
    (films / "second.csv").write_text("path,id\na1.mp4,10\n")
    assert ingest(films / "second.csv")[0] == 0


def test_two_manifests_of_one_run_are_typed_together(films, ingest):
    (films / "first.csv").write_text("path,score\na0.mp4,10\n")
    (films / "second.jsonl").write_text('{"video": "a1.mp4", "score": 10.5}\n')
    assert ingest(films / "first.csv", films / "second.jsonl")[0] == 0
    assert ask(films / "catalog", "SELECT score FROM sources ORDER BY uri") == [(10.0,), (10.5,)]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_an_id_of_64_bits_without_a_sign_is_printed_as_it_was_written(films, ingest, capsys, name):
    rows = [("a0.mp4", 2**64 - 1), ("a1.mp4", 7)]
    lines = [f"{path},{number}" for path, number in rows] if name == "m.csv" else []
    lines = lines or [json.dumps({"path": path, "id": number}) for path, number in rows]
    (films / name).write_text("\n".join(["path,id", *lines] if name == "m.csv" else lines) + "\n")
    assert ingest(films / name)[0] == 0
    query = f"SELECT id FROM sources WHERE id = {2**64 - 1}"
    assert sql(films / "catalog", query, capsys, "csv") == f"id\n{2**64 - 1}\n"
    assert json.loads(sql(films / "catalog", query, capsys, "json")) == [{"id": 2**64 - 1}]
    assert f" {2**64 - 1} " in sql(films / "catalog", query, capsys, "table")


def test_an_id_grows_past_63_bits_in_a_later_file(films, ingest):
    (films / "first.csv").write_text("path,id\na0.mp4,7\n")
    (films / "second.csv").write_text(f"path,id\na1.mp4,{2**64 - 1}\n")
    assert ingest(films / "first.csv")[0] == ingest(films / "second.csv")[0] == 0
    assert [str(number) for (number,) in ask(films / "catalog", "SELECT id FROM sources ORDER BY uri")] == [
        "7",
        str(2**64 - 1),
    ]


def test_the_metadata_of_a_hugging_face_folder_is_a_manifest(films, ingest):
    (films / "metadata.csv").write_text("file_name,text\na0.mp4,hello\n")
    assert ingest(films / "metadata.csv")[0] == 0
    assert ask(films / "catalog", "SELECT uri, text FROM sources") == [(str(films / "a0.mp4"), "hello")]


def test_a_manifest_in_a_bucket_is_read_twice_as_well(bucket, films, ingest):
    import s3fs

    store = s3fs.S3FileSystem()
    text = f"path,id\n{films}/a0.mp4,1\n" + "".join(f"/absent/{i}.mp4,{i:09}\n" for i in range(5))
    store.pipe_file(f"{bucket}/m.csv", text.encode())
    assert ingest(f"{bucket}/m.csv")[0] == 1
    assert ask(films / "catalog", "SELECT id FROM sources WHERE status = 'done'") == [("1",)]


def test_a_wrong_manifest_makes_no_catalog(films, ingest):
    (films / "m.csv").write_text("name,caption\na0.mp4,x\n")
    code, said = ingest(films / "m.csv")
    assert code == 2 and "no column `uri`" in said and said.count("\n") == 1
    assert not (films / "catalog").exists()


@pytest.fixture
def server():
    """The URL of a web server that has nothing: every name is answered with the status code that it ends with."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path.rpartition("/")[2].partition(".")[0]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_a_source_that_a_server_does_not_give_fails_with_the_status_code_and_the_url(films, ingest, server):
    (films / "m.csv").write_text(f"url\n{server}/404.mp4\n{server}/403.mp4\n")
    assert ingest(films / "m.csv")[0] == 1
    reasons = dict(ask(films / "catalog", "SELECT uri, reason FROM sources"))
    assert reasons == {
        f"{server}/404.mp4": f"can't be opened: HTTP 404 Not Found: {server}/404.mp4",
        f"{server}/403.mp4": f"can't be opened: HTTP 403 Forbidden: {server}/403.mp4",
    }


@pytest.mark.parametrize("name", ["403.mp4", "403.csv"])
def test_an_input_that_a_server_does_not_give_is_one_line_with_the_status_code(ingest, server, name):
    code, said = ingest(f"{server}/{name}")
    assert code == 2 and f"HTTP 403 Forbidden: {server}/{name}" in said and said.count("\n") == 1


def test_a_film_that_is_all_fade_in_is_done_without_a_clip_and_says_why(films, ingest, capsys):
    ground = np.random.default_rng(0).integers(60, 255, (9, 16, 3)).repeat(8, 0).repeat(8, 1)
    levels = [0.0] * 12 + list(np.linspace(0, DIM, 24))
    write_video(films / "fade.mp4", [(ground * level).astype(np.uint8) for level in levels], options={"crf": "10"})
    assert ingest(films / "fade.mp4", films / "a0.mp4")[0] == 0
    reason = "no clip: all of it is a fade or another gradual transition"
    found = ask(films / "catalog", "SELECT status, clips, reason FROM sources ORDER BY clips")
    assert found == [("done", 0, reason), ("done", 1, None)]
    assert main(["status", "--catalog", str(films / "catalog")]) == 0
    said = capsys.readouterr().out
    assert "done without a clip" in said and reason in said
    assert main(["verify", "--catalog", str(films / "catalog")]) == 0


def test_status_names_a_missing_input_once(films, ingest, capsys, tmp_path):
    (films / "one").mkdir()
    (films / "a0.mp4").rename(films / "one" / "a0.mp4")
    ingest(films / "one")
    pipelines(tmp_path, RECIPE + "      - gate: {moving: 'motion >= 0'}\n")  # another text of the same recipe
    ingest(films / "one")
    (films / "one").rename(films / "two")
    capsys.readouterr()
    assert main(["status", "--catalog", str(films / "catalog")]) == 0
    assert capsys.readouterr().out.count(f"no such input: {films / 'one'}") == 1
