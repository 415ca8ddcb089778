"""`clipmill sql` on a real terminal: a readable choice of columns, all of them on demand, and always all elsewhere."""

import csv
import io
import json
import os
import pty
import re
import threading
from contextlib import redirect_stderr, redirect_stdout

import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.ledger import Ledger
from curate.cli.main import main
from tests.catalog_rows import commit_rows
from tests.curate.running import ask

FOLDER = "/a/long/way/to/the/place/where/the/films/lie"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Two clips with signals, judged by a gate on sharpness."""
    catalog = Catalog.open_or_create(str(tmp_path_factory.mktemp("sql") / "catalog"))
    signals = {"motion": 1.5, "sharpness": 2.5, "luma_mean": 99.0, "contrast": 5.0, "phash": "ab" * 24}
    clips = [
        {"clip_id": f"{n:032x}", "source_id": "s" * 32, "uri": f"{FOLDER}/film.mp4", "media": "video", "width": 640,
         "start_s": 2.0 * n, "end_s": 2.0 * n + 2, "start_pts": n, "end_pts": n + 1, **signals}
        for n in range(2)
    ]  # fmt: skip
    source = {"source_id": "s" * 32, "uri": f"{FOLDER}/film.mp4", "status": "done", "settings": "x", "duration_s": 4.0}
    types = {"clips": {name: "string" if name == "phash" else "double" for name in signals}}
    with Ledger(catalog, "sources", "source_id", "a" * 32) as ledger:
        commit_rows(ledger, {"sources": [source], "clips": clips, "thumbnails": []}, types)
    catalog.put_gates("ingest", [Gate(name="sharp", where="sharpness >= 1")], "run")
    return catalog.uri


def on_terminal(catalog, query, *arguments, columns=100):
    """(what a terminal of so many columns shows, stderr): stdout is a pseudo-terminal."""
    parent, child = pty.openpty()
    shown, errors = bytearray(), io.StringIO()

    def read():
        try:
            while part := os.read(parent, 65536):
                shown.extend(part)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}.items():
            patch.setenv(name, value)
        with open(child, "w") as terminal, redirect_stdout(terminal), redirect_stderr(errors):
            main(["sql", query, "--catalog", catalog, *arguments])
    reader.join()
    os.close(parent)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n"), errors.getvalue()


def head(shown):
    """The names of a table's columns."""
    return [name.strip() for name in shown.splitlines()[1].split("┃")[1:-1]]


def names(catalog, table="clips"):
    return [row[0] for row in ask(catalog, f"DESCRIBE {table}")]


def test_a_star_shows_the_columns_that_say_most_and_says_how_many_are_left_out(catalog):
    shown, said = on_terminal(catalog, "SELECT * FROM clips ORDER BY start_s")
    chosen = head(shown)
    assert chosen[:5] == ["uri", "start_s", "end_s", "verdict", "sharpness"]  # nothing was dropped: no dropped_by
    assert max(map(len, shown.splitlines())) <= 100 and len(shown.splitlines()) == 7
    assert "…" in shown and "/film.mp4" in shown
    assert not {"clip_id", "start_pts", "phash", "versions"} & set(chosen)
    left = len(names(catalog)) - len(chosen)
    assert said == f"shown: {', '.join(chosen)}; {left} columns left out (--wide shows all, --vertical one a line)\n"


def test_a_wider_terminal_shows_more_and_a_narrow_one_less(catalog):
    counts = [len(head(on_terminal(catalog, "FROM clips", columns=columns)[0])) for columns in (60, 80, 110)]
    assert counts[0] < counts[1] < counts[2]


def test_what_is_named_beside_the_star_is_shown_first(catalog):
    shown, _ = on_terminal(catalog, "SELECT *, end_s - start_s AS length FROM clips")
    assert head(shown)[:2] == ["length", "uri"]


def test_wide_shows_every_column_side_by_side_and_vertical_one_a_line(catalog):
    shown, said = on_terminal(catalog, "SELECT * FROM clips", "--wide")
    assert head(shown) == names(catalog) and said == ""
    shown, said = on_terminal(catalog, "SELECT * FROM clips LIMIT 1", "--vertical")
    assert [line.split()[0] for line in shown.splitlines()[1:-1]] == names(catalog) and said == ""


def test_named_columns_are_all_shown_whatever_the_width(catalog):
    shown, said = on_terminal(catalog, "SELECT clip_id, source_id, phash FROM clips", columns=60)
    assert head(shown) == ["clip_id", "source_id", "phash"] and said == ""
    many = ", ".join(names(catalog))
    shown, said = on_terminal(catalog, f"SELECT {many} FROM clips LIMIT 1", columns=60)
    assert len(shown.splitlines()) == len(names(catalog)) + 2 and said == ""


def test_a_table_that_fits_and_one_without_rows_are_whole(catalog):
    shown, said = on_terminal(catalog, "FROM places")
    assert head(shown) == names(catalog, "places") and said == ""


@pytest.mark.parametrize("arguments", [[], ["--wide"], ["--format", "csv"], ["--format", "json"]])
def test_a_pipe_gets_every_column(catalog, capsys, arguments):
    assert main(["sql", "SELECT * FROM clips", "--catalog", catalog, *arguments]) == 0
    said = capsys.readouterr()
    if "csv" in arguments:
        found = next(csv.reader(io.StringIO(said.out)))
    else:
        found = list(json.loads(said.out)[0]) if "json" in arguments else head(said.out)
    assert found == names(catalog) and said.err == ""


def test_a_file_gets_every_column_from_a_terminal_too(catalog, tmp_path):
    assert on_terminal(catalog, "SELECT * FROM clips", "-o", str(tmp_path / "x.csv")) == ("", "")
    assert next(csv.reader((tmp_path / "x.csv").open())) == names(catalog)
    assert on_terminal(catalog, "SELECT * FROM clips", "--format", "json")[0].startswith('[\n{"clip_id"')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--wide", "--vertical"], "not allowed with"),
        (["--vertical", "--format", "csv"], "--vertical is for tables, and csv has every column"),
        (["--wide", "-o", "x.json"], "--wide is for tables, and json has every column"),
    ],
)
def test_layouts_that_do_not_go_together_are_one_line(catalog, capsys, arguments, words):
    try:
        code = main(["sql", "FROM clips", "--catalog", catalog, *arguments])
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr()
    assert code == 2 and said.out == "" and words in said.err and said.err.count("\n") == 1
