"""What `clipmill run` says when it ends: counts on its last line, and exit code 1 for new failures alone."""

import re

import pytest

from curate.cli.main import main
from curate.progress_bar import ProgressBar
from tests.curate.running import pipelines
from tests.hostile import moving_square, write_video

RECIPES = """\
recipes:
  ingest:
    stages:
      - cut: {detector: fixed, seconds: 0.5, min_seconds: 0}
      - measure: [exposure]
      - gate: {later: "start_s > 0"}
  captions:
    select: SELECT * FROM clips WHERE verdict = 'kept'
    stages: [caption: {manifest: {sidecar: .txt}}]
  vectors:
    select: SELECT * FROM clips
    stages: [embed: {model: "clipmill:tiny_clip", pretrained: null}]
"""


@pytest.fixture
def run(tmp_path, capsys):
    """`clipmill run RECIPE ...` on three films of two clips, of which one has no caption, and a broken one: gives
    (exit code, its lines, what it said on stderr).
    """
    films = tmp_path / "films"
    films.mkdir()
    for number in range(3):
        write_video(films / f"{number}.mp4", moving_square(24))
        (films / f"{number}.txt").write_text("" if number == 2 else "a square moves")
    (films / "broken.mp4").write_bytes(b"no video" * 99)
    file = pipelines(tmp_path, RECIPES)

    def command(recipe, *more):
        given = ["--input", films] if recipe == "ingest" else []
        options = ["--catalog", tmp_path / "catalog", "--pipelines", file, "--engine", "inline"]
        code = main([str(word) for word in ["run", recipe, *given, *options, *more]])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return command


def test_the_last_line_counts_sources_clips_and_hours_and_what_is_pending(run):
    _, lines, _ = run("ingest", "--limit", "2")
    assert re.fullmatch(
        r"pending: 2 sources, 0 clips; the catalog: [12] sources done, [01] failed; \d clips, \d kept "
        r"\(0\.\d{3} hours\), \d dropped",
        lines[-1],
    ), lines[-1]
    _, lines, _ = run("ingest")
    assert lines[-1] == (
        "pending: 0 sources, 0 clips; the catalog: 3 sources done, 1 failed; 6 clips, 3 kept (0.000 hours), 3 dropped"
    )
    _, lines, _ = run("captions", "--limit", "1")
    assert lines[-1].startswith("pending: 0 sources, 2 clips; ")


def test_a_source_that_failed_before_is_a_line_and_no_exit_code(run):
    code, lines, _ = run("ingest")
    assert code == 1 and "1 failed sources, 1 of them in this run" in "\n".join(lines)
    code, lines, _ = run("ingest")
    assert code == 0 and "1 failed sources, 0 of them in this run" in "\n".join(lines)
    assert run("ingest", "--retry-failed")[0] == 1


def test_a_clip_that_failed_before_is_a_line_and_no_exit_code(run):
    run("ingest")
    code, lines, _ = run("captions")
    assert code == 1 and "1 failed clips in captions, 1 of them in this run" in "\n".join(lines)
    code, lines, _ = run("captions")
    assert code == 0 and "1 failed clips in captions, 0 of them in this run" in "\n".join(lines)
    assert run("captions", "--retry-failed")[0] == 1


def test_a_model_that_is_loaded_is_named_before_the_first_clip_and_the_counts_come_last(run):
    run("ingest")
    code, out, said = run("vectors")
    assert code == 0, (out, said)
    lines = [line for line in said.splitlines() if line.startswith("vectors")]
    assert lines[0] == "vectors: loading CLIP model tiny_clip"
    assert lines[-1].startswith("vectors 6/6 clips ") and "embeddings 6 done 0 failed" in lines[-1]


def test_the_first_source_says_how_far_it_is_before_it_is_done(run, monkeypatch):
    shares, advance = [], ProgressBar.advance

    def note(bar, share):
        shares.append((bar.done, round(share, 2)))
        advance(bar, share)

    monkeypatch.setattr(ProgressBar, "advance", note)
    run("ingest")
    assert shares[:2] == [(0, 0.5), (0, 1.0)] and len(shares) == 6
