"""`clipmill demo`: draws short films, curates them, asks three questions, and checks the answers."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

import curate
from curate.ask import print_query
from curate.catalog import Catalog
from curate.demo.films import FilmTruth, draw_films, read_truth, write_truth
from curate.demo.truth_check import compare, describe, films_are_there
from curate.errors import UserError
from curate.run import RunOptions, run_recipes
from curate.views import connect

RECIPES = Path(curate.__file__).with_name("pipelines.yaml")  # not a pipelines.yaml that happens to lie here

QUESTIONS = {
    "How many hours does each source bring, and how much of it is kept?": (
        "SELECT parse_filename(uri) AS source, count(*) AS clips, sum(end_s - start_s) / 3600 AS hours, "
        "coalesce(sum(end_s - start_s) FILTER (verdict = 'kept'), 0) / 3600 AS hours_kept "
        "FROM clips WHERE media = 'video' GROUP BY source ORDER BY hours DESC, source"
    ),
    "How many clips does each gate cost?": (
        "SELECT dropped_by AS gate, count(*) AS clips FROM clips WHERE verdict = 'dropped' "
        "GROUP BY gate ORDER BY clips DESC, gate"
    ),
    "Which ten clips move most?": (
        "SELECT parse_filename(uri) AS source, start_s, end_s, motion, sharpness FROM clips "
        "ORDER BY motion DESC NULLS LAST, clip_id LIMIT 10"
    ),
}


def demo(folder: str | Path, engine: str = "ray") -> int:
    """Leaves films, films.jsonl (the truth about them) and catalog in `folder`; goes on where it was stopped.

    Returns 0 when the files that are broken on purpose failed and no other did, else 1.
    """
    folder = Path(folder)
    films, catalog = folder / "films", folder / "catalog"
    if folder.is_dir() and any(folder.iterdir()) and not films.is_dir():
        raise UserError(f"{folder} is not empty and holds no demo: give another folder with -o")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    truth = _films(films, folder / "films.jsonl", console)

    _show(console, "run", "ingest", "--input", str(films), "--catalog", str(catalog))
    run_recipes(["ingest"], str(catalog), [str(films)], RECIPES, options=RunOptions(engine=engine))

    for question, query in QUESTIONS.items():
        console.print(f"\n{question}")
        _show(console, "sql", query, "--catalog", str(catalog))
        print_query(str(catalog), query, "table", None)

    with connect(Catalog.open(str(catalog))) as sql:
        result = compare(sql, truth)
    console.print("\nHeld against what was drawn:")
    console.print("\n".join(describe(result)))
    console.print("\nThe same commands work on your own videos: give their folder as --input.")
    return 0 if result.only_the_broken_failed else 1


def _films(films: Path, truth_file: Path, console: Console) -> list[FilmTruth]:
    """The truth about the films, which are drawn unless all are there. The truth is written last."""
    if truth_file.exists() and films_are_there(films, truth := read_truth(truth_file)):
        console.print(f"{films}: the {len(truth)} films are there already")
        return truth
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("drawing films")
        truth = draw_films(films, progress=lambda done, total: progress.update(bar, completed=done, total=total))
    write_truth(truth_file, truth)
    console.print(f"{films}: {len(truth)} films drawn, {sum(f.media == 'broken' for f in truth)} broken on purpose")
    return truth


def _show(console: Console, *command: str) -> None:
    """The command that does what follows, as one would type it: SQL goes into double quotes."""
    words = (f'"{word}"' if " " in word else shlex.quote(word) for word in command)
    console.print(f"$ clipmill {' '.join(words)}")
