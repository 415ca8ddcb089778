"""Rights columns through the command line: from manifests, folders of signals and films to gates, shards and datasets.

The films are deleted before a run wherever nothing may be decoded.
"""

import csv
import json
import shutil

import pyarrow.parquet as pq
import pytest

from curate.catalog.rights import RIGHTS
from curate.cli.main import main
from stages.shards.format import read_index, read_sample
from tests.curate.running import ask, pipelines
from tests.hostile import moving_square, write_video
from tests.signed_films import sign, training
from tests.vae_models import vae_folder

pytestmark = pytest.mark.slow

RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0}
      - cut: {detector: fixed, seconds: 1, min_seconds: 0.5}
      - measure: [motion]
      %(more)s
"""
LICENSED = """- gate: {licensed: "licence IN ('cc0', 'cc-by')"}"""
ROWS = [
    {"path": "films/a.mp4", "licence": "cc-by", "source_kind": "crawled", "url": "https://example.com/free/a.mp4"},
    {"path": "films/b.mp4", "licence": "all rights reserved", "url": "https://example.com/private/b.mp4"},
    {"path": "films/c.mp4", "url": "https://example.org/c.mp4"},
]
BY_FILM = "SELECT parse_filename(uri), {} FROM {} GROUP BY ALL ORDER BY ALL"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    for name in "abc":
        write_video(folder / f"{name}.mp4", moving_square(24, 96, 72))
    return folder


@pytest.fixture
def films(tmp_path, drawn):
    """Three films of one clip each."""
    return shutil.copytree(drawn, tmp_path / "films")


@pytest.fixture
def run(tmp_path, films, capsys):
    """`clipmill run ingest` on a manifest of these rows; gives (exit code, what it printed)."""

    def command(rows=ROWS, more=LICENSED, recipes=RECIPES, recipe="ingest"):
        words = ["run", recipe, "--catalog", tmp_path / "catalog", "--engine", "inline"]
        words += ["--pipelines", pipelines(tmp_path, recipes % {"more": more})]
        if recipe == "ingest":
            words += ["--input", write_manifest(tmp_path / "films.csv", rows)]
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


@pytest.fixture
def catalog(tmp_path):
    return tmp_path / "catalog"


def write_manifest(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def by_film(catalog, columns, view="clips"):
    return ask(catalog, BY_FILM.format(columns, view))


def changed(rows, number, **cells):
    return [row | cells if at == number else row for at, row in enumerate(rows)]


def test_every_catalog_has_the_rights_columns_typed_and_null(run, catalog):
    assert run(rows=[{"path": "films/a.mp4"}], more="")[0] == 0
    for view in ("sources", "clips"):
        found = dict(row[:2] for row in ask(catalog, f"DESCRIBE {view}"))
        assert {name: found[name] for name in RIGHTS.names} == {
            name: "TIMESTAMP" if name.endswith("_checked") else "VARCHAR" for name in RIGHTS.names
        }
    assert ask(catalog, f"SELECT {', '.join(RIGHTS.names)} FROM clips") == [(None,) * len(RIGHTS.names)]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"source_kind": "bought"}, "row 2: source_kind is 'bought', expected one of 'public dataset', 'licensed', "),
        ({"optout_tdmrep": "no"}, "row 2: optout_tdmrep is 'no', expected one of 'allowed', 'constrained', "),
        ({"optout_c2pa": ""}, None),
        ({"consent_checked": "soon"}, "row 2: consent_checked is 'soon', expected a date such as 2026-01-31"),
        ({"consent_checked": "2026-02-30"}, "row 2: consent_checked is '2026-02-30', expected a date"),
        ({"consent_checked": "2026-02-28 12:00:00+01:00"}, None),
        ({"licence": "007"}, None),
    ],
)
def test_a_value_that_no_column_takes_is_one_line_before_any_work(run, catalog, cells, said):
    code, printed = run(changed(ROWS, 1, **cells), more="")
    assert code == (0 if said is None else 2)
    if said is not None:
        assert printed.startswith("clipmill: ") and said in printed and printed.count("\n") == 1
        assert not catalog.exists()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_manifests_are_checked_alike(tmp_path, films, capsys, kind):
    import pyarrow as pa

    rows = [{"path": "films/a.mp4", "source_kind": "user", "consent_checked": "2026-01-31"},
            {"path": "films/b.mp4", "source_kind": "users", "consent_checked": None}]  # fmt: skip
    file = tmp_path / f"films.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        table = pa.Table.from_pylist(rows)
        at = table.schema.get_field_index("consent_checked")
        dates = table["consent_checked"].cast(pa.date32())
        pq.write_table(table.set_column(at, "consent_checked", dates), file)
    words = ["run", "ingest", "--input", str(file), "--catalog", str(tmp_path / "catalog"), "--engine", "inline",
             "--pipelines", str(pipelines(tmp_path, RECIPES % {"more": ""}))]  # fmt: skip
    assert main(words) == 2
    assert f"{file}: row 2: source_kind is 'users'" in capsys.readouterr().err
    if kind == "jsonl":
        file.write_text(file.read_text().replace("users", "user"))
        assert main(words) == 0
        found = ask(tmp_path / "catalog", "SELECT source_kind, consent_checked::VARCHAR FROM sources ORDER BY uri")
        assert found == [("user", "2026-01-31 00:00:00"), ("user", None)]


def test_a_gate_judges_by_manifest_columns_and_null_is_unknown(run, catalog):
    assert run()[0] == 0
    assert by_film(catalog, "verdict, dropped_by, unknown_gates") == [
        ("a.mp4", "kept", None, []),
        ("b.mp4", "dropped", "licensed", []),
        ("c.mp4", "kept", None, ["licensed"]),
    ]


def test_unknown_drop_drops_clips_of_which_nothing_is_known(run, catalog):
    more = """- gate: {licensed: {where: "licence IN ('cc0', 'cc-by')", unknown: drop}}"""
    assert run(more=more)[0] == 0
    assert [row[1] for row in by_film(catalog, "verdict")] == ["kept", "dropped", "dropped"]


def test_a_changed_cell_judges_again_and_decodes_nothing(run, catalog, films):
    assert run()[0] == 0
    shutil.rmtree(films)
    code, said = run(changed(ROWS, 1, licence="cc0"))
    assert code == 0 and "1 changed, 2 the same" in said
    assert [row[1] for row in by_film(catalog, "verdict")] == ["kept", "kept", "kept"]


def test_a_gate_on_a_manifest_column_saves_the_stages_after_it(run, catalog):
    more = LICENSED + "\n      - caption: {source: manifest}"
    rows = [row | {"caption": f"film {number}"} for number, row in enumerate(ROWS)]
    assert run(rows, more)[0] == 0
    assert by_film(catalog, "clips.caption", "captions JOIN clips USING (clip_id)") == [
        ("a.mp4", "film 0"),
        ("c.mp4", "film 2"),
    ]
    assert by_film(catalog, "sources_caption") == [("a.mp4", "film 0"), ("b.mp4", "film 1"), ("c.mp4", "film 2")]
    assert run(changed(rows, 1, licence="cc0"), more)[0] == 0
    assert len(by_film(catalog, "caption", "clips SEMI JOIN captions USING (clip_id)")) == 3


def test_plain_columns_of_a_manifest_can_be_named_too_and_a_typo_is_told(run, catalog):
    rows = [row | {"take": number} for number, row in enumerate(ROWS)]
    assert run(rows, '- gate: {late: "take >= 1"}')[0] == 0
    assert [row[1] for row in by_film(catalog, "verdict")] == ["dropped", "kept", "kept"]
    code, said = run(rows, '- gate: {late: "takes >= 1"}')
    assert code == 2 and "pipelines.yaml:7: gate 'late'" in said and "takes" in said


def test_the_domain_is_the_host_of_an_address_unless_the_manifest_says(catalog, tmp_path):
    from curate.catalog.catalog import Catalog
    from curate.catalog.ledger import Ledger
    from tests.catalog_rows import commit_rows

    uris = ["https://User@Films.Example.com:8080/a.mp4", "http://[::1]/b.mp4", "/films/c.mp4", "https://x.org/d.mp4"]
    rows = [{"source_id": f"{at:032x}", "uri": uri, "status": "done", "domain": "said.org" if at == 3 else None}
            for at, uri in enumerate(uris)]  # fmt: skip
    with Ledger(Catalog.open_or_create(str(catalog)), "sources", "source_id", "run") as ledger:
        commit_rows(ledger, {"sources": rows})
    found = ask(catalog, "SELECT domain FROM sources ORDER BY source_id")
    assert found == [("films.example.com",), ("[::1]",), (None,), ("said.org",)]


def signals(folder, **files):
    for name, text in files.items():
        path = folder / "example.com" / {"robots": "robots.txt", "tdmrep": "tdmrep.json"}[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


OPT_OUTS = "- opt_outs: {folder: %s, agents: [GPTBot], url: url}"
OPTED_OUT = "\n      - gate: {free: \"optout_robots <> 'not allowed'\"}"


def test_a_folder_of_signals_is_read_for_new_sources_and_refreshed_without_a_decode(run, catalog, films, tmp_path):
    folder = signals(tmp_path / "signals", robots="User-agent: GPTBot\nDisallow: /private/\n")
    more = OPT_OUTS % folder + OPTED_OUT
    code, said = run(more=more)
    assert code == 0
    assert by_film(catalog, "optout_robots, optout_tdmrep, verdict") == [
        ("a.mp4", "allowed", None, "kept"),
        ("b.mp4", "not allowed", None, "dropped"),
        ("c.mp4", None, None, "kept"),
    ]
    shutil.rmtree(films)
    signals(folder, robots="", tdmrep='[{"location": "/free/", "tdm-reservation": 1}]')
    code, said = run(more=more)
    assert code == 0 and "1 domains" in said and "2 known sources changed" in said
    assert by_film(catalog, "optout_robots, optout_tdmrep, optout_tdmrep_from, verdict") == [
        ("a.mp4", "none found", "not allowed", "example.com/tdmrep.json (/free/: tdm-reservation 1)", "kept"),
        ("b.mp4", "none found", "none found", "example.com/tdmrep.json", "kept"),
        ("c.mp4", None, None, None, "kept"),
    ]
    assert "0 known sources changed" in run(more=more)[1]


@pytest.mark.parametrize(
    ("more", "rows", "said"),
    [
        ("- opt_outs: {folder: nowhere}", ROWS, "pipelines.yaml:7: opt_outs: can't read the folder nowhere"),
        ("- opt_outs: {agents: [GPTBot]}", ROWS, "pipelines.yaml:7: opt_outs: give a `folder` of fetched signals"),
        ("- opt_outs: {folder: ., url: adress}", ROWS, "pipelines.yaml:7: opt_outs.url: sources have no column"),
        ("- opt_outs: {folder: .}", [ROWS[0] | {"optout_robots": "allowed"}], "has the column 'optout_robots'"),
        ("- opt_outs: {folder: ., agent: x}", ROWS, "unknown setting 'opt_outs.agent'; did you mean 'agents'?"),
    ],
)
def test_settings_that_can_not_work_are_one_line(run, catalog, more, rows, said):
    code, printed = run(rows, more)
    assert code == 2 and said in printed and printed.count("\n") == 1
    assert not catalog.exists()


def test_opt_outs_belong_to_recipes_of_sources(run):
    recipes = "recipes:\n  ingest:\n    select: SELECT * FROM clips\n    stages:\n      %(more)s\n"
    code, said = run(more="- opt_outs: {c2pa: true}", recipes=recipes, recipe="ingest")
    assert code == 2 and "stage 'opt_outs' takes sources, but this recipe has `select`" in said


def test_the_training_assertion_of_films_is_read_in_the_scan_and_later_without_a_decode(run, catalog, films):
    sign(films / "a.mp4", films / "signed.mp4", training(ai_training="notAllowed")).replace(films / "a.mp4")
    assert run(rows=ROWS[:1], more="")[0] == 0
    assert by_film(catalog, "optout_c2pa", "sources") == [("a.mp4", None)]
    before = ask(catalog, "SELECT run_id, cpu_seconds FROM sources")
    code, said = run(rows=ROWS[:2], more="- opt_outs: {c2pa: true}")
    assert code == 0 and "C2PA read from 1 known sources" in said
    assert by_film(catalog, "optout_c2pa", "sources") == [("a.mp4", "not allowed"), ("b.mp4", "none found")]
    assert ask(catalog, "SELECT run_id, cpu_seconds FROM sources WHERE uri LIKE '%a.mp4'") == before
    assert "C2PA" not in run(rows=ROWS[:2], more="- opt_outs: {c2pa: true}")[1]


def test_a_column_with_nearly_the_right_name_is_told(run):
    rows = [{"path": row["path"], "license": "cc0"} for row in ROWS]
    assert "'license' is a column like any; call it 'licence'" in run(rows, more="")[1]


def test_rights_stand_in_the_shard_as_they_were_and_in_a_dataset_as_they_are(run, catalog, films, tmp_path):
    latents = RECIPES + """
  latents:
    select: SELECT * FROM clips
    stages:
      - encode: {vae: VAE, buckets: [5x32x48], fps: 8, max_upscale: 2}
""".replace("VAE", str(vae_folder(tmp_path / "vae")))  # fmt: skip
    rows = [row | {"take": number, "consent_checked": "2026-01-31"} for number, row in enumerate(ROWS)]
    assert run(rows, more="", recipes=latents)[0] == 0
    assert run(more="", recipes=latents, recipe="latents")[0] == 0
    assert run(changed(rows, 0, licence="cc0"), more="", recipes=latents)[0] == 0
    assert "0 taken" in run(more="", recipes=latents, recipe="latents")[1]  # a licence encodes nothing again
    said = {}
    for shard in catalog.rglob("*.tar"):
        for row in read_index(str(shard)).to_pylist():
            if row["field"] == "json":
                sample = read_sample(str(shard), [row])["json"]
                said[sample["uri"].rsplit("/")[-1]] = sample
    assert said["a.mp4"]["rights"] == {
        "source_kind": "crawled", "licence": "cc-by", "consent_checked": "2026-01-31T00:00:00Z"
    }  # fmt: skip
    assert said["c.mp4"]["rights"] == {"consent_checked": "2026-01-31T00:00:00Z"}
    assert "take" not in said["a.mp4"]["conditions"]  # numbers of a manifest are none by themselves
    words = ["dataset", "create", "all", "--catalog", catalog, "--select", "SELECT clip_id FROM clips"]
    assert main([str(word) for word in [*words, "-o", tmp_path / "datasets"]]) == 0
    index = pq.read_table(tmp_path / "datasets" / "all" / "index.parquet")
    assert set(RIGHTS.names) <= set(index.column_names)
    licences = dict(ask(catalog, "SELECT clip_id, licence FROM clips"))
    assert dict(zip(index["clip_id"].to_pylist(), index["licence"].to_pylist(), strict=True)) == licences
    assert sorted(map(str, licences.values())) == ["None", "all rights reserved", "cc0"]
