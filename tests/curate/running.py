"""What the tests of whole runs share: a small folder of films, clipmill as a process, what a catalog holds."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO

import numpy as np

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.cli.main import main
from curate.run.command import RunOptions, run_recipes
from tests.hostile import moving_square, write_video

CLIPMILL = str(Path(sys.executable).with_name("clipmill"))
# Everything of a clip: nothing in it says when or by which run it was made.
CLIPS = "SELECT * FROM clips ORDER BY clip_id"
INLINE = RunOptions(engine="inline", quiet=True)

PIPELINES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0.5}
      - cut: {min_seconds: 1, max_seconds: 20}
      - measure: [motion, exposure, static, phash]
      - gate:
          bright: "luma_mean >= 90"
          moving: "motion > 0"
"""


def cut_film(path: Path, seed: int) -> Path:
    """Two takes of 1.5 s with a hard cut, and one of half a second."""
    rng = np.random.default_rng(seed)

    def frames():
        for count in (36, 36, 12):
            ground = rng.integers(0, 255, (9, 12, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            for index, frame in enumerate(moving_square(count, 96, 72)):
                yield np.roll(ground, index, axis=1) // 2 + frame // 2

    return write_video(path, frames())


def make_folder(path: Path, films: int = 5) -> Path:
    path.mkdir(parents=True)
    for number in range(films):
        cut_film(path / f"film_{number}.mp4", number)
    (path / "broken.mp4").write_bytes(b"no video at all" * 40)
    return path


def pipelines(folder: Path, text: str = PIPELINES) -> Path:
    file = folder / "pipelines.yaml"
    file.write_text(text)
    return file


def ingest(catalog: Path | str, *inputs: Path | str, file: Path, options: RunOptions = INLINE, sets=()) -> int:
    return run_recipes(["ingest"], str(catalog), [str(i) for i in inputs] or None, file, tuple(sets), options)


def ask(catalog: Path | str, query: str) -> list[tuple]:
    with connect(Catalog.open(str(catalog))) as sql:
        return sql.execute(query).fetchall()


def clipmill(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The command line within this process, which spares a second of imports: what it exits with and prints."""
    words = [str(argument) for argument in arguments]
    with (
        contextlib.chdir(cwd or Path.cwd()),
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as error,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            code = main(words)
        except SystemExit as stopped:
            code = stopped.code
        except Exception:
            traceback.print_exc()
            code = 1
        return subprocess.CompletedProcess(words, code, _written(out), _written(error))


def _written(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def clipmill_process(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The same as a process of its own."""
    return subprocess.run([CLIPMILL, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)


def often(rows: int, *arguments: str | Path) -> list[str]:
    """The command line of a clipmill that commits every so many rows, so that kills fall between commits too."""
    code = (
        "import sys, functools, curate.run.command as c; from curate.cli.main import main; "
        "from curate.engines.engine import CloseRule; "
        f"c.RunOptions = functools.partial(c.RunOptions, closing=CloseRule(rows={rows})); sys.exit(main())"
    )
    return [sys.executable, "-P", "-c", code, *map(str, arguments)]


def as_json(done: subprocess.CompletedProcess) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}
