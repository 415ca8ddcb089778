"""`clipmill demo`: draws films, curates them, trains on them and samples video; then compares with what it drew."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from curate.audit.command import run_audit
from curate.audit.page.page import PAGE
from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.demo.films import FilmTruth, draw_films, read_truth, write_truth
from curate.demo.rights import write_rights
from curate.demo.shapes import draw_shape_films
from curate.demo.truth_check import compare, describe
from curate.errors import UserError
from curate.interrupts import raise_if_stopped
from curate.progress_bar import ProgressBar
from curate.query.sql import print_query
from curate.run.command import RunOptions, run_recipes
from curate.run.report import funnel_rows
from models.files import write_whole

if TYPE_CHECKING:
    from curate.demo.learning import Show, TrainingResult

RECIPES = ("ingest", "captions", "duplicates")
MODEL_PACKAGES = ("torch", "open_clip", "transformers")  # that the tiny model needs
TEXT = "a red circle"  # to search for
AUDIT = "audit"  # the folder of the audit

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


def demo(folder: str | Path, engine: str = "auto", learning: bool = True) -> int:
    """Makes films, films.jsonl (the truth about them), rights.csv (whose they are), pipelines.yaml, catalog, search.png
    and audit, and with `learning` vae, datasets/demo, run, samples and index.html, in `folder`. Continues where it was
    stopped.

    Returns 0 if the files that are broken on purpose failed and no other, and samples show what their prompts say;
    else 1.
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

    truth = make_films(films, folder / "films.jsonl", console, shapes=learning)
    with_model = all(importlib.util.find_spec(package) for package in MODEL_PACKAGES)
    pipelines = write_pipelines(folder / "pipelines.yaml", with_model, folder)

    inputs = [str(write_rights(folder / "rights.csv", (film.name for film in truth))), str(films)]
    given = [word for text in inputs for word in ("--input", text)]
    show("run", *RECIPES, "--pipelines", str(pipelines), *given, "--catalog", str(catalog))
    raise_if_stopped(run_recipes(list(RECIPES), str(catalog), inputs, pipelines, options=RunOptions(engine=engine)))

    for question, query in QUESTIONS.items():
        console.print(f"\n{question}")
        show("sql", query, "--catalog", str(catalog))
        print_query(str(catalog), query, "table", None)

    with connect(Catalog.open(str(catalog))) as sql:
        result = compare(sql, truth)
        funnel = funnel_rows(sql, [gate.name for gate in Catalog.open(str(catalog)).gates()])
    found = describe(result)
    trained: TrainingResult | None = None
    if with_model:
        console.print(f"\nWhere is {TEXT}?")
        show("search", TEXT, "-k", "10", "--catalog", str(catalog), "-o", str(folder / "search.png"))
        found.append(_search(catalog, folder / "search.png", truth))
        if learning:
            trained = _learn(folder, pipelines, engine, show)
            found += trained.described()
    else:
        console.print("\nEmbeddings, search and training were left out: pip install 'clipmill[clip,train]'")
    console.print("\nWhat is in the catalog, what was lost and why?")
    show("audit", "--catalog", str(catalog), "-o", str(folder / AUDIT))
    run_audit(str(catalog), str(folder / AUDIT))
    console.print("\nCompared with what was drawn:")
    console.print("\n".join(found))
    console.print("\nThe same commands work on your own videos: give their folder as --input.")
    if trained is not None:
        from curate.demo.page import write_page

        write_page(folder / "index.html", found, funnel, shown, trained, f"{AUDIT}/{PAGE}")
        console.print(f"Pictures of all of it: {folder / 'index.html'}")
    good = trained is None or trained.good
    return 0 if result.only_the_broken_failed and not result.failed_clips and good else 1


def _learn(folder: Path, pipelines: Path, engine: str, show: Show) -> TrainingResult:
    from curate.demo.learning import learn

    return learn(folder, pipelines, engine, show)


def make_films(films: Path, truth_file: Path, console: Console, shapes: bool = True) -> list[FilmTruth]:
    """Draws the films that are missing, and returns the truth about all of them, which is written last."""
    known = read_truth(truth_file) if truth_file.exists() else []
    there = [film for film in known if all((films / name).exists() for name in (film.name, film.caption_file or "."))]
    if known and len(there) == len(known):
        console.print(f"{films}: the {len(known)} films are there already")
        return known
    truth = _draw("drawing films", lambda progress: draw_films(films, 0, progress, there))
    if shapes:
        truth += _draw("drawing films of shapes", lambda progress: draw_shape_films(films, progress=progress))
    write_truth(truth_file, truth)
    broken = sum(film.media == "broken" for film in truth)
    console.print(f"{films}: {len(truth) - len(there)} films drawn, {broken} broken on purpose")
    return truth


def _draw(name: str, draw: Callable[[Callable[[int, int], None]], list[FilmTruth]]) -> list[FilmTruth]:
    """What `draw` returns, with its progress shown."""
    with ProgressBar(name, None, "films") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        return draw(show)


def write_pipelines(path: Path, with_model: bool, folder: Path) -> Path:
    """Writes the recipes of the demo, without the stages that need a model if none can run."""
    lines = Path(__file__).with_name("pipelines.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = [
        line.replace("DEMO", str(folder.absolute())) for line in lines if with_model or "clipmill:tiny_" not in line
    ]
    write_whole(path, "".join(chosen))
    return path


def _search(catalog: Path, sheet: Path, truth: list[FilmTruth]) -> str:
    """Searches clips by text, writes a contact sheet, and says how well fifty questions are answered."""
    from curate.demo.queries import recalls
    from curate.query.search import TextSearch, run_search

    run_search(str(catalog), TEXT, k=10, output=str(sheet))
    with TextSearch(Catalog.open(str(catalog))) as search:
        recall = recalls(search, truth)
    return f"search: {len(recall)} questions in words, recall@5 {sum(recall.values()) / len(recall):.2f}"


def _as_typed(command: Sequence[str]) -> str:
    """A command as a user types it: SQL and prompts in double quotes."""
    return "clipmill " + " ".join(f'"{word}"' if " " in word else shlex.quote(word) for word in command)
