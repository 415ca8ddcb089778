"""`clipmill demo`: the whole way on films that it draws, from files to sampled video, and what came of what it drew."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.demo.films import FilmTruth, draw_films, read_truth, write_truth
from curate.demo.shapes import draw_shape_films
from curate.demo.truth_check import compare, describe
from curate.errors import UserError
from curate.interrupts import raise_if_stopped
from curate.query.sql import print_query
from curate.run.command import RunOptions, run_recipes
from curate.run.report import funnel_rows

RECIPES = ("ingest", "captions", "duplicates")
MODEL_PACKAGES = ("torch", "open_clip", "transformers")  # what the tiny model needs
TEXT = "a red circle"  # what is searched for

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


def demo(folder: str | Path, engine: str = "ray", learning: bool = True) -> int:
    """Leaves films, films.jsonl (the truth about them), pipelines.yaml, catalog, search.png and, unless `learning` is
    False, vae, datasets/demo, run, samples and index.html in `folder`.

    Goes on where it was stopped. Returns 0 when the files that are broken on purpose failed and nothing else did,
    and samples show what was asked for; else 1.
    """
    folder = Path(folder)
    films, catalog = folder / "films", folder / "catalog"
    if folder.is_dir() and any(folder.iterdir()) and not films.is_dir():
        raise UserError(f"{folder} is not empty and holds no demo: give another folder with -o")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    shown: list[str] = []

    def show(*command: str) -> None:
        shown.append(_as_typed(command))
        console.print(f"\n$ {shown[-1]}")

    truth = _films(films, folder / "films.jsonl", console, shapes=learning)
    with_model = all(importlib.util.find_spec(package) for package in MODEL_PACKAGES)
    pipelines = _pipelines(folder / "pipelines.yaml", with_model, folder)

    show("run", *RECIPES, "--pipelines", str(pipelines), "--input", str(films), "--catalog", str(catalog))
    raise_if_stopped(
        run_recipes(list(RECIPES), str(catalog), [str(films)], pipelines, options=RunOptions(engine=engine))
    )

    for question, query in QUESTIONS.items():
        console.print(f"\n{question}")
        show("sql", query, "--catalog", str(catalog))
        print_query(str(catalog), query, "table", None)

    with connect(Catalog.open(str(catalog))) as sql:
        result = compare(sql, truth)
        funnel = funnel_rows(sql, [gate.name for gate in Catalog.open(str(catalog)).gates()])
    found, learnt = describe(result), None
    if with_model:
        console.print(f"\nWhere is {TEXT}?")
        show("search", TEXT, "-k", "10", "--catalog", str(catalog), "-o", str(folder / "search.png"))
        found.append(_search(catalog, folder / "search.png", truth))
        if learning:
            learnt = _learn(folder, pipelines, engine, show)
            found += learnt.described()
    else:
        console.print("\nEmbeddings, search and training were left out: pip install 'clipmill[clip,train]'")
    console.print("\nHeld against what was drawn:")
    console.print("\n".join(found))
    console.print("\nThe same commands work on your own videos: give their folder as --input.")
    if learnt is not None:
        from curate.demo.page import write_page

        write_page(folder / "index.html", found, funnel, shown, learnt)
        console.print(f"Pictures of all of it: {folder / 'index.html'}")
    good = learnt is None or learnt.good
    return 0 if result.only_the_broken_failed and not result.failed_clips and good else 1


def _learn(folder: Path, pipelines: Path, engine: str, show: Callable[..., None]) -> Any:
    from curate.demo.learning import learn

    return learn(folder, pipelines, engine, show)


def _films(films: Path, truth_file: Path, console: Console, shapes: bool = True) -> list[FilmTruth]:
    """The truth about the films, of which those that are not there are drawn. The truth is written last."""
    told = read_truth(truth_file) if truth_file.exists() else []
    there = [film for film in told if all((films / name).exists() for name in (film.name, film.caption_file or "."))]
    if told and len(there) == len(told):
        console.print(f"{films}: the {len(told)} films are there already")
        return told
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("drawing films")

        def heard(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        truth = draw_films(films, 0, heard, there)
        if shapes:
            truth += draw_shape_films(films, progress=heard)
    write_truth(truth_file, truth)
    broken = sum(film.media == "broken" for film in truth)
    console.print(f"{films}: {len(truth) - len(there)} films drawn, {broken} broken on purpose")
    return truth


def _pipelines(path: Path, with_model: bool, folder: Path) -> Path:
    """Writes the recipes of the demo, without what needs a model where none can run."""
    from curate.demo import tiny_clip, tiny_text

    lines = Path(__file__).with_name("pipelines.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = [
        line.replace("TINY_CLIP", str(tiny_clip.FOLDER))
        .replace("TINY_TEXT", str(tiny_text.FOLDER))
        .replace("DEMO", str(folder.absolute()))
        for line in lines
        if with_model or "TINY_" not in line
    ]
    path.write_text("".join(chosen), encoding="utf-8")
    return path


def _search(catalog: Path, sheet: Path, truth: list[FilmTruth]) -> str:
    """Finds clips by words, leaves a contact sheet, and says how well fifty questions are answered."""
    from curate.demo.queries import recalls
    from curate.query.search import TextSearch, run_search

    run_search(str(catalog), TEXT, k=10, output=str(sheet))
    with TextSearch(Catalog.open(str(catalog))) as asked:
        recall = recalls(asked, truth)
    return f"search: {len(recall)} questions in words, recall@5 {sum(recall.values()) / len(recall):.2f}"


def _as_typed(command: Sequence[str]) -> str:
    """A command as one would type it: SQL and prompts go into double quotes."""
    return "clipmill " + " ".join(f'"{word}"' if " " in word else shlex.quote(word) for word in command)
