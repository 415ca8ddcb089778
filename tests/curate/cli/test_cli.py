"""The command line as a user meets it, wrong input first: one clear line each, exit code 2, no traceback."""

import csv
import io
import json
import subprocess
import sys

import pytest

from curate.cli.main import main
from tests.curate.running import PIPELINES, as_json, clipmill, clipmill_process, ingest, make_folder, pipelines


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with films/, pipelines.yaml and a finished catalog/."""
    place = tmp_path_factory.mktemp("cli")
    make_folder(place / "films", films=2)
    ingest(place / "catalog", place / "films", file=pipelines(place))
    return place


def refused(done, *words):
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("clipmill: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "ingets", "--input", "films", "--catalog", "new"], ["no recipe 'ingets'", "'ingest'"]),
        (["run", "ingest", "--input", "nowhere", "--catalog", "new"], ["no such input", "nowhere"]),
        (["run", "ingest", "--catalog", "new"], ["no input", "--input"]),
        (["run", "ingest", "--input", "films", "--catalog", "new", "--pipelines", "no.yaml"], ["no.yaml"]),
        (
            ["run", "ingest", "--input", "films", "--catalog", "new", "--set", "cut.detecter=x"],
            ["cut.detecter", "detector"],
        ),
        (["run", "ingest", "--input", "films", "--catalog", "films"], ["films is no catalog and not empty"]),
        (["run", "ingest", "--input", "films", "--catalog", "nosuch://x/y"], ["nosuch"]),
        (["run", "ingest", "--input", "films", "--catalog", "films/film_0.mp4"], ["film_0.mp4"]),
        (["sql", "SELECT 1", "--catalog", "nowhere"], ["no catalog at", "nowhere"]),
        (["status", "--catalog", "nowhere"], ["no catalog at"]),
        (["verify", "--catalog", "nowhere"], ["no catalog at"]),
        (["sql", "SELEC 1", "--catalog", "catalog"], ["syntax error"]),
        (["sql", "SELECT moton FROM clips", "--catalog", "catalog"], ["moton", "motion"]),
        (["sql", "SELECT 1", "--catalog", "catalog", "-o", "no/such/folder.csv"], ["can't write"]),
        (["sql", "DROP VIEW clips", "--catalog", "catalog"], []),
        (["sql", "", "--catalog", "catalog"], []),
        (["run", "ingest", "--input", "a.json", "--catalog", "new"], [".jsonl"]),
        (["run", "ingest", "--input", "s3://no-such-bucket-of-ours/x", "--catalog", "new"], ["s3://no-such-bucket"]),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(place, arguments, words):
    refused(clipmill(*arguments, cwd=place), *words)
    assert not (place / "new").exists()
    assert not (place / "nowhere").exists()


def test_a_wrong_key_is_told_with_file_and_line(place, tmp_path):
    file = pipelines(tmp_path, PIPELINES.replace("max_seconds", "max_secnds"))
    done = clipmill("run", "ingest", "--input", "films", "--catalog", "new", "--pipelines", file, cwd=place)
    refused(done, f"{file}:5: unknown setting 'cut.max_secnds'", "max_seconds")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["frobnicate"],
        ["run", "ingest"],
        ["sql", "--format", "xml", "x"],
        ["status", "--catalog", ""],
        ["run", "ingest", "--input", "", "--catalog", "new"],
    ],
)
def test_wrong_usage_exits_with_2(place, arguments):
    done = clipmill_process(*arguments, cwd=place)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["statu", "--catalog", "x"], "did you mean 'status'?"),
        (
            ["run", "ingest", "--catalog", "x", "--inptu", "y"],
            "--inptu y; did you mean '--input'? (see clipmill run --help)",
        ),
        (["sql", "SELECT 1", "--catalog", "x", "--vertcal"], "did you mean '--vertical'? (see clipmill sql --help)"),
    ],
)
def test_a_misspelled_command_or_option_names_the_one_that_is_meant(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and words in said and said.count("\n") == 1


def test_csv_and_json_print_data_and_nothing_else(place):
    query = "SELECT clip_id, start_s, failed_gates FROM clips ORDER BY clip_id"
    rows = as_json(clipmill("sql", query, "--catalog", "catalog", "--format", "json", cwd=place))
    done = clipmill("sql", query, "--catalog", "catalog", "--format", "csv", cwd=place)
    read = list(csv.DictReader(io.StringIO(done.stdout)))
    assert done.stderr == ""
    assert len(rows) == len(read) == 6
    assert [row["clip_id"] for row in rows] == [row["clip_id"] for row in read]
    assert [row["start_s"] for row in rows] == [float(row["start_s"]) for row in read]
    assert [row["failed_gates"] for row in rows] == [json.loads(row["failed_gates"]) for row in read]


def test_json_stays_json_whatever_a_value_is(place):
    query = (
        "SELECT 'nan'::DOUBLE AS a, NULL AS b, '\"\n🎬' AS c, [1, NULL] AS d, now() AS e, 'x'::BLOB AS f, {'k': 1} AS g"
    )
    text = clipmill("sql", query, "--catalog", "catalog", "--format", "json", cwd=place).stdout

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads(text, parse_constant=refuse)[0]
    assert (row["a"], row["b"], row["c"], row["d"], row["g"]) == (None, None, '"\n🎬', [1, None], {"k": 1})


def test_a_blob_leaves_whole_as_base64_and_the_ending_of_the_output_says_the_format(place, tmp_path):
    import base64

    target = tmp_path / "thumbnails.json"
    assert clipmill("sql", "FROM thumbnails", "--catalog", "catalog", "-o", target, cwd=place).returncode == 0
    rows = json.loads(target.read_text())
    assert rows
    assert all(base64.b64decode(row["jpeg"]).startswith(b"\xff\xd8") for row in rows)


def test_an_output_file_is_whole_or_absent(place, tmp_path):
    query = "SELECT clip_id FROM clips"
    target = tmp_path / "clips.csv"
    assert clipmill("sql", query, "--catalog", "catalog", "--format", "csv", "-o", target, cwd=place).stdout == ""
    assert len(target.read_text().splitlines()) == 7
    assert list(tmp_path.iterdir()) == [target]


def test_a_reader_that_goes_away_is_no_error(place):
    query = "SELECT * FROM range(200000)"
    command = [sys.executable, "-m", "curate.cli", "sql", query, "--catalog", str(place / "catalog"), "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_status_counts_done_failed_and_pending(place, tmp_path):
    make_folder(tmp_path / "films", films=3)
    file = pipelines(tmp_path)
    clipmill("run", "ingest", "--input", "films", "--catalog", "catalog", "--pipelines", file, "--engine", "inline",
             "--limit", "2", cwd=tmp_path)  # fmt: skip
    out = clipmill("status", "--catalog", tmp_path / "catalog", cwd=place).stdout
    assert "sources: 1 done (0.001 hours), 1 failed, 2 pending" in out
    assert "text, not a video" in out


def test_a_run_ends_with_the_funnel_failures_and_time_and_exits_with_1_for_a_failed_source(place, tmp_path):
    done = clipmill_process("run", "ingest", "--input", place / "films", "--catalog", tmp_path / "catalog",
                    "--engine", "inline", "--pipelines", place / "pipelines.yaml", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 1
    for word in ("clips left", "cut.min_seconds", "text, not a video", "CPU seconds", "1 failed"):
        assert word in done.stdout
    assert "Traceback" not in done.stderr


def test_verify_exits_with_1_when_a_table_was_tampered_with(place, tmp_path):
    import shutil

    shutil.copytree(place / "catalog", tmp_path / "catalog")
    assert clipmill("verify", "--catalog", tmp_path / "catalog").returncode == 0
    next((tmp_path / "catalog" / "clips").glob("*.parquet")).unlink()
    done = clipmill("verify", "--catalog", tmp_path / "catalog")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_help_needs_nothing_heavy(place):
    code = (
        "import sys\n"
        "from curate.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'cv2', 'av', 'duckdb', 'ray', 'torch', 'pyarrow', 'numpy'}\n"
        "print({m for m in sys.modules if m.split('.')[0] in heavy})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "set()"


def test_commands_that_need_no_model_load_no_torch():
    """It takes seconds at each start."""
    modules = "curate.run.command, curate.run.relocate, curate.run.status, curate.run.verify, curate.removal.purge"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_missing_extra_is_named_with_the_command_that_installs_it(place, tmp_path):
    code = (
        "import sys; sys.modules['decord'] = None\n"
        "from curate.cli.main import main\n"
        f"sys.exit(main(['run', 'ingest', '--input', 'films', '--catalog', {str(tmp_path / 'c')!r}, "
        "'--set', 'probe.backend=decord', '--engine', 'inline']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=place)
    refused(done, "decord", "pip install 'clipmill[decord]'")


def test_decord_gives_the_same_clips(place, tmp_path):
    from tests.curate.running import ask

    pytest.importorskip("decord")
    ingest(tmp_path / "decord", place / "films", file=place / "pipelines.yaml", sets=["probe.backend=decord"])
    spans = "SELECT clip_id, start_pts, end_pts, frames, width FROM clips ORDER BY 1"
    assert ask(tmp_path / "decord", spans) == ask(place / "catalog", spans)


def test_stop_of_a_catalog_without_a_live_run_exits_with_1(place):
    done = clipmill("stop", "--catalog", "catalog", cwd=place)
    assert done.returncode == 1
    assert done.stdout == "no live run of catalog\n"
