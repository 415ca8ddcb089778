"""Inputs in which a user expects videos and there are none: one line and exit code 2, never a table of zeros."""

import pytest

from curate.cli.main import main
from tests.curate.running import ask
from tests.hostile import moving_square, write_video


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`clipmill run ingest --input X` in a folder: gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def command(*inputs):
        given = [word for one in inputs for word in ("--input", str(one))]
        code = main(["run", "ingest", *given, "--catalog", "catalog", "--engine", "inline"])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def films(folder):
    folder.mkdir(exist_ok=True)
    write_video(folder / "a.mp4", moving_square(60, 96, 72))


def test_an_empty_folder_is_refused_in_a_line(run, tmp_path):
    (tmp_path / "films" / "below").mkdir(parents=True)
    assert run("films") == (2, "", f"clipmill: no videos found in {tmp_path}/films\n")


def test_what_is_there_instead_is_told(run, tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "notes.txt").write_text("tomorrow")
    (tmp_path / "films" / "cut.prproj").write_text("project")
    (tmp_path / "films" / "more.txt").write_text("more")
    code, out, said = run("films")
    assert code == 2 and out == "" and said.count("\n") == 1
    assert "2 not a media file by its name (.txt)" in said and "1 not a media file by its name (.prproj)" in said


def test_a_manifest_of_no_rows_is_refused_too(run, tmp_path):
    (tmp_path / "films.csv").write_text("path,caption\n")
    assert run("films.csv")[0] == 2


def test_a_folder_with_nothing_new_is_fine(run, tmp_path):
    films(tmp_path / "films")
    assert run("films")[0] == 0
    assert run("films")[0] == 0
    assert ask(tmp_path / "catalog", "SELECT count(*) FROM sources") == [(1,)]


def test_an_empty_folder_beside_one_with_films_costs_nothing(run, tmp_path):
    films(tmp_path / "films")
    (tmp_path / "empty").mkdir()
    assert run("films", "empty")[0] == 0


def test_a_folder_that_lost_its_films_is_told_and_the_catalog_keeps_them(run, tmp_path):
    films(tmp_path / "films")
    assert run("films")[0] == 0
    (tmp_path / "films" / "a.mp4").unlink()
    assert run("films")[0] == 2
    assert ask(tmp_path / "catalog", "SELECT status FROM sources") == [("done",)]


@pytest.mark.parametrize("name", ["films.csv", "films.jsonl"])
@pytest.mark.parametrize(
    ("encoding", "words"),
    [("utf-16", "is UTF-16"), ("utf-16-le", "is UTF-16"), ("utf-16-be", "is UTF-16"), ("latin-1", "is not UTF-8")],
)
def test_a_manifest_that_is_not_utf_8_says_so_and_what_to_do(run, tmp_path, name, encoding, words):
    rows = {"films.csv": "path,caption\na.mp4,Müllers Café\n", "films.jsonl": '{"path": "Müllers Café.mp4"}\n'}
    (tmp_path / name).write_bytes(rows[name].encode(encoding))
    code, out, said = run(name)
    assert code == 2 and out == "" and said.count("\n") == 1
    assert words in said and "save it as UTF-8" in said and f"{tmp_path}/{name}" in said


def test_the_mark_of_utf_8_is_no_part_of_a_manifest(run, tmp_path):
    films(tmp_path / "films")
    (tmp_path / "films.csv").write_bytes("path,caption\nfilms/a.mp4,Café\n".encode("utf-8-sig"))
    assert run("films.csv")[0] == 0
    assert ask(tmp_path / "catalog", "SELECT caption FROM sources") == [("Café",)]
