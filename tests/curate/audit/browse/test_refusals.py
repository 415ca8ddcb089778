"""What `clipmill browse` refuses: writes, files, settings, extensions, requests without the token or from elsewhere.

A sentinel file lies beside the catalog, and the whole folder is compared byte by byte behind every attempt.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.curate.audit.browse.serving import serving

SECRET = "the-sentinel-was-read-8d1f"


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, with a hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def guarded(browsed, tmp_path_factory):
    """(server, folder with catalog/, secret.csv and the server's current directory, what was in it before)."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copytree(browsed / "catalog", folder / "catalog")
    (folder / "secret.csv").write_text(f"name\n{SECRET}\n")
    (folder / "here").mkdir()
    (folder / "here" / "secret.csv").write_text(f"name\n{SECRET}\n")
    before = contents(folder)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with serving(folder / "catalog", cwd=folder / "here", env=environment) as served:
        yield served, folder, before


def parquet(folder):
    return next((folder / "catalog" / "clips").glob("*.parquet"))


REFUSED = [
    "COPY clips TO '{folder}/new.csv'",
    "COPY (SELECT 1) TO '{folder}/catalog/clips/new.parquet'",
    "COPY (SELECT 1 AS clip_id) TO '{parquet}'",
    "WITH taken AS (COPY (SELECT 1) TO '{parquet}' (FORMAT csv, USE_TMP_FILE false)) FROM taken",
    "WITH taken AS (COPY clips TO '{folder}/new.csv') FROM taken",
    "COPY (SELECT 1 AS clip_id) TO '{parquet}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPORT DATABASE '{folder}/new'",
    "ATTACH '{folder}/new.db'",
    "ATTACH '{parquet}' AS taken",
    "ATTACH '{folder}/catalog/clips/new.db'",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "CREATE OR REPLACE VIEW clips AS SELECT 1",
    "CREATE MACRO mine() AS 1",
    "CREATE SECRET mine (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "DROP VIEW clips",
    "DROP TABLE page.clips",
    "DELETE FROM page.clips",
    "UPDATE page.clips SET uri = 'x'",
    "INSERT INTO page.clips SELECT * FROM page.clips",
    "WITH gone AS (DELETE FROM page.clips RETURNING *) FROM gone",
    "WITH gone AS MATERIALIZED (DELETE FROM page.clips RETURNING clip_id) SELECT clip_id FROM gone",
    "WITH more AS (INSERT INTO page.clips FROM page.clips RETURNING *) FROM more",
    "WITH other AS (UPDATE page.clips SET uri = 'x' RETURNING *) FROM other",
    "TRUNCATE page.clips",
    "ALTER TABLE page.clips DROP COLUMN uri",
    "SET memory_limit = '1TB'",
    "SET GLOBAL enable_external_access = true",
    "RESET lock_configuration",
    "SET lock_configuration = false",
    "SET allowed_paths = ['{folder}/secret.csv']",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "PRAGMA profiling_output = '{folder}/new.json'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{folder}/secret.csv'",
    "UPDATE EXTENSIONS",
    "CALL pragma_version()",
    "CALL enable_logging()",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "PREPARE mine AS SELECT 1",
    "EXECUTE mine",
    "USE raw",
    "EXPLAIN ANALYZE COPY clips TO '{folder}/new.csv'",
    "SELECT 1; COPY clips TO '{folder}/new.csv'",
    "SELECT 1; SELECT 2",
    "SELECT * FROM read_csv('{folder}/secret.csv')",
    "SELECT * FROM read_csv_auto('{folder}/secret.csv')",
    "SELECT * FROM read_text('{folder}/secret.csv')",
    "SELECT * FROM read_blob('{folder}/secret.csv')",
    "SELECT * FROM read_json('{folder}/secret.csv')",
    "SELECT * FROM read_parquet('{folder}/catalog/*/*.parquet')",
    "SELECT * FROM read_parquet('{parquet}')",
    "SELECT * FROM parquet_metadata('{parquet}')",
    "SELECT * FROM read_duckdb('{folder}/secret.csv')",
    "SELECT * FROM sniff_csv('{folder}/secret.csv')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM '{folder}/secret.csv'",
    "SELECT * FROM 'secret.csv'",
    "FROM 'secret.csv'",
    'SELECT * FROM "{folder}/secret.csv"',
    "SELECT (SELECT any_value(name) FROM 'secret.csv')",
    "WITH taken AS (SELECT * FROM read_text('secret.csv')) SELECT * FROM taken",
    "SELECT * FROM clips WHERE uri IN (SELECT content FROM read_text('secret.csv'))",
    "SELECT 1 UNION ALL SELECT content FROM read_text('secret.csv')",
    "SELECT * FROM query('SELECT * FROM read_text(''secret.csv'')')",
    "SELECT * FROM query_table('secret.csv')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM clips'))",
    "DESCRIBE SELECT * FROM read_csv('secret.csv')",
    "SUMMARIZE SELECT * FROM 'secret.csv'",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM pragma_table_info('secret.csv')",
    "SELECT * FROM enable_logging(storage = 'file')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM checkpoint()",
    "SELECT getenv('HOME')",
    "SELECT * FROM os",
    "SELECT * FROM sys",
    "",
    ";",
    "-- nothing",
    "nonsense",
    "\x00",
    "SELECT '\ud800'",
    "SELECT * FROM 'http://127.0.0.1:9/x.csv'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "(" * 5000 + "1" + ")" * 5000,
]


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_a_query_that_does_more_than_select_from_the_schema_is_refused(guarded, text):
    served, folder, before = guarded
    text = text.replace("{folder}", str(folder)).replace("{parquet}", str(parquet(folder)))
    said = served.refused("rows", text=text)
    assert SECRET not in said and "\n" not in said
    for asked in (
        {"question": "page", "selection": {"query": text}},
        {"question": "try", "gate": {"where": text}},
        {"question": "page", "selection": {"gate": {"where": text}, "change": "kept then"}},
    ):
        assert SECRET not in served.refused(**asked)
    assert contents(folder) == before


def test_duckdb_itself_refuses_what_the_check_before_it_refuses(browsed, tmp_path):
    """The check of the text is the second wall: without it nothing gets out either."""
    import duckdb

    from curate.audit.browse.confined import open_confined
    from curate.catalog.catalog import Catalog

    shutil.copytree(browsed / "catalog", tmp_path / "catalog")
    (tmp_path / "secret.csv").write_text(f"name\n{SECRET}\n")
    sql = open_confined(Catalog.open(str(tmp_path / "catalog")), 1.0).connection
    before = contents(tmp_path)
    walls = [
        text
        for text in REFUSED
        if " (COPY " in text or text.startswith(("COPY", "EXPORT", "SET", "RESET", "INSTALL", "LOAD", "UPDATE E"))
    ]
    walls += [text for text in REFUSED if "secret.csv" in text and not text.startswith(("PRAGMA", "DESCRIBE"))]
    walls += [text for text in REFUSED if "read_parquet('{folder}" in text or "glob(" in text or "new.db" in text]
    assert len(walls) > 30
    for text in walls:
        with pytest.raises(duckdb.Error):
            rows = sql.execute(text.replace("{folder}", str(tmp_path)).replace("{parquet}", str(parquet(tmp_path))))
            assert SECRET not in str(rows.fetchall())
    assert contents(tmp_path) == before
    assert sql.execute("SELECT count(*) > 0 FROM clips").fetchall() == [(True,)]


WORDS = [
    "SELECT", "*", "FROM", "clips", "(", ")", ",", "'secret.csv'", "'../secret.csv'", "read_text", "read_csv", "glob",
    "COPY", "TO", "ATTACH", "AS", "x", "SET", "PRAGMA", "LOAD", ";", "--", "/*", "*/", "\n", "UNION ALL", "WITH",
    "WHERE", "query", "'FROM clips'", "page.clips", "raw.sources", "EXPLAIN", "ANALYZE", "DESCRIBE", "SUMMARIZE",
    "PIVOT",     "CALL", "LIMIT 1", "{secret}", "{parquet}", "''", '"', "$$", "IN", "EXISTS", "LATERAL", "unnest",
    "range(3)", "VALUES",
]  # fmt: skip
queries = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join),
    st.tuples(st.sampled_from(["SELECT * FROM ", "FROM ", "SELECT * FROM clips, ", "WITH a AS (FROM "]),
              st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)).map("".join),
    st.text(max_size=60),
)  # fmt: skip


@settings(max_examples=150)
@given(text=queries, where=st.sampled_from(["rows", "query", "gate", "filter", "order"]))
def test_no_text_finds_a_way_out(guarded, text, where):
    served, folder, before = guarded
    text = text.replace("{secret}", f"'{folder}/secret.csv'").replace("{parquet}", f"'{parquet(folder)}'")
    given = {
        "rows": {"question": "rows", "text": text},
        "query": {"question": "page", "selection": {"query": text}},
        "gate": {"question": "try", "gate": {"where": text or "x"}},
        "filter": {"question": "page", "selection": {"filters": [{"column": text, "operator": "=", "value": text}]}},
        "order": {"question": "page", "selection": {"order": text}},
    }[where]
    reply = served.post(f"ask/{given.pop('question')}", given)
    assert reply.status in (200, 400), reply.body
    assert SECRET.encode() not in reply.body
    assert contents(folder) == before


PARTS = ["..", ".", "", "%2e%2e", "secret.csv", "app.js", "ask", "rows", "span", "thumbnail", "catalog", "etc",
         "passwd", "%00", "0", "-1", "x.mp4", "index.html", "worker.py", "%2fetc%2fpasswd", "\\",
         "99999999999999999999999"]  # fmt: skip


@settings(max_examples=150)
@given(
    parts=st.lists(st.sampled_from(PARTS), max_size=6),
    inside=st.booleans(),
    method=st.sampled_from(["GET", "POST", "PUT"]),
)
def test_no_path_finds_a_way_out(guarded, parts, inside, method):
    served, folder, before = guarded
    path = (served.root if inside else "/") + "/".join(parts)
    reply = served.send(method, path, b"{}" if method == "POST" else None)
    assert reply.status < 600 and SECRET.encode() not in reply.body and b"root:" not in reply.body
    assert b"import " not in reply.body or reply.headers["content-type"].startswith("text/javascript")
    if not inside:
        assert reply.status == 403
    assert contents(folder) == before


@pytest.mark.parametrize("path", ["", "app.js", "style.css", "ask/schema", "thumbnail/0", "span/x.mp4", "nothing"])
def test_nothing_is_answered_without_the_token(served, path):
    token = served.root.strip("/")
    for wrong in ("", "x", token[:-1], token + "x", token.swapcase(), "%2e%2e"):
        for method in ("GET", "POST"):
            reply = served.send(
                method, f"/{wrong}/{path}" if wrong else f"/{path}", b"{}" if method == "POST" else None
            )
            assert reply.status == 403 and b"address" in reply.body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1", "",
                                  "localhost.evil.example:{port}", "127.0.0.1:{port}:1", "127.0.0.1@evil"])  # fmt: skip
def test_another_host_is_refused_even_with_the_token(served, host):
    reply = served.send("GET", served.root, headers={"Host": host.format(port=served.port)})
    assert reply.status in (400, 421) and b"<html" not in reply.body


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "localhost:9000", "LOCALHOST"])
def test_the_loopback_is_answered_through_any_port_of_a_tunnel(served, host):
    assert served.send("GET", served.root, headers={"Host": host.format(port=served.port)}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_origin_is_refused_even_with_the_token(served, headers):
    given = {name: value.format(port=served.port) for name, value in headers.items()}
    assert served.send("POST", served.root + "ask/schema", b"{}", given).status == 403
    own = {"Origin": f"http://127.0.0.1:{served.port}", "Sec-Fetch-Site": "same-origin"}
    assert served.send("POST", served.root + "ask/schema", b"{}", own).status == 200


def test_every_answer_forbids_other_sources_and_being_kept(served):
    for reply in (served.get(""), served.get("nothing"), served.send("GET", "/"), served.post("ask/schema")):
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none';") and "http" not in policy and "unsafe" not in policy
        assert reply.headers["referrer-policy"] == "no-referrer" and reply.headers["cache-control"] == "no-store"
        assert (
            reply.headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in reply.headers
        )


def test_it_listens_on_the_loopback_alone(served):
    listening = [
        one for one in psutil.Process(served.process.pid).net_connections() if one.status == psutil.CONN_LISTEN
    ]
    assert [one.laddr for one in listening] == [("127.0.0.1", served.port)]


def test_a_body_that_is_too_long_or_no_object_is_refused(served):
    for body in (b"x" * (2 << 20), b"[1]", b"{", b"\xff", b"[" * 100_000):
        assert served.send("POST", served.root + "ask/schema", body).status == 400


@pytest.mark.parametrize(
    ("question", "given"),
    [
        ("rows", {"text": 5}),
        ("rows", {}),
        ("column", {"name": ["a"]}),
        ("clip", {"clip_id": None}),
        ("page", {}),
        ("page", {"selection": {}, "after": "x"}),
        ("page", {"selection": {}, "after": float("inf")}),
        ("try", {"gate": 5}),
        ("export", {"selection": [1]}),
    ],
)
def test_a_question_of_another_shape_is_refused_in_one_line(guarded, question, given):
    assert "Error" not in guarded[0].refused(question, **given)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "SELECT length(repeat('x', 200000000000))",
        "SELECT len(list_resize([1], 100000000000))",
        "SELECT count(DISTINCT (a.x, b.x)) FROM range(100000000) a(x), range(1000) b(x)",
    ],
)
def test_a_query_of_any_size_costs_itself_and_not_the_server_and_leaves_no_file(browsed, text, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with serving(browsed / "catalog", "--memory-gb", "1", cwd=tmp_path, env=environment) as served:
        began = time.monotonic()
        reply = served.post("ask/rows", {"text": text})
        assert reply.status == 400 and time.monotonic() - began < 60
        assert served.ask("schema")["clips"] > 0
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(30) == 0
    assert not list(tmp_path.iterdir())
