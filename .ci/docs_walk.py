"""Runs docs/start-to-end.md on a folder of films and a CSV of captions, drawn or given, and says what it took.

The page is run in a folder that holds `films/`, `more/` (films that come later) and `captions.csv`. Drawn ones are of
five containers' worth of codecs and sizes, with a copy and a broken file among those that come later. Given ones are
the reader's own: the last quarter of them comes later.
"""

from __future__ import annotations

import csv
import datetime
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.demo.films import draw_films

PAGE = "docs/start-to-end.md"
MEASURED = re.compile(r"(<!-- measured -->\n).*?(<!-- end of measured -->)", re.DOTALL)
FILMS = (
    *("cuts.mp4", "cuts_mpeg4.avi", "cuts_vp9.webm", "cross_fades.mp4", "changing_rate.mkv", "wide.mp4", "phone.mp4"),
    "still_life.mp4",
)
LATER = ("titles.mp4", "cuts_copy.mp4", "lens_cap.mp4", "letter.mp4")  # a copy and a file that is no film among them
WRITTEN = ("sheet.png", "search.png", "vae/reconstructions.png", "samples.png", "clips/metadata.jsonl")


def walk(
    blocks: list[Any],
    run: Callable[..., dict[Any, str]],
    folder: Path,
    given: tuple[Path, Path] | None,
    page: Path | None,
) -> dict[Any, str]:
    """Runs the page's blocks in `folder` by `run`, on `given` films and their CSV, else on drawn ones; gives what they
    printed. The table of seconds is renewed in `page`. SystemExit where the page promises what does not hold.
    """
    if given:
        take(folder, *given)
    else:
        draw(folder)
    before, seconds, printed = Path.cwd(), dict[str, float](), dict[Any, str]()
    os.chdir(folder)
    for block in blocks:
        began = time.monotonic()
        found = run([block], strict=given is None)
        printed |= {shown: text.replace(f"{folder}/", "") for shown, text in found.items()}
        if block.language == "sh":
            seconds[block.heading] = seconds.get(block.heading, 0) + time.monotonic() - began
    os.chdir(before)
    table = measured(seconds, folder)
    print(table)
    if wrong := broken_promises(folder, drawn=given is None):
        raise SystemExit(f"{PAGE}: {'; '.join(wrong)}")
    if page is not None:
        text = page.read_text(encoding="utf-8")
        page.write_text(MEASURED.sub(lambda old: old[1] + table + old[2], text), encoding="utf-8")
    return printed


def draw(folder: Path) -> None:
    """Films of the demo, and a CSV with the caption of each: what its shots show, as they were drawn."""
    with tempfile.TemporaryDirectory() as drawn:
        truth = {film.name: film for film in draw_films(drawn, seed=7)}
        for name, chosen in (("films", FILMS), ("more", LATER)):
            (folder / name).mkdir(parents=True)
            for film in chosen:
                shutil.copy2(Path(drawn, film), folder / name)
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "caption"])
        for film in (*FILMS, *LATER):
            if not truth[film].duplicate_of and truth[film].media == "video":
                rows.writerow([film, ", then ".join(shot["caption"] for shot in truth[film].shots)])


def take(folder: Path, films: Path, captions: Path) -> None:
    """Copies films and their CSV; the last quarter of the files comes later."""
    files = sorted(path for path in films.iterdir() if path.is_file() and path.resolve() != captions.resolve())
    first = len(files) - max(1, len(files) // 4)
    for name, chosen in (("films", files[:first]), ("more", files[first:])):
        (folder / name).mkdir(parents=True)
        for path in chosen:
            shutil.copy2(path, folder / name)
    shutil.copy2(captions, folder / "captions.csv")


def broken_promises(folder: Path, drawn: bool) -> list[str]:
    """What the page says and the folder, after its commands, does not show."""
    wrong = [f"{name} was not written" for name in WRITTEN if not (folder / name).is_file()]
    with connect(Catalog.open(str(folder / "catalog"))) as sql:
        # The runs of the section "Change your mind": each recipe's second.
        query = (
            "SELECT recipe, counts FROM runs QUALIFY row_number() OVER (PARTITION BY recipe ORDER BY started_at) = 2"
        )
        counted = {recipe: json.loads(counts) for recipe, counts in sql.sql(query).fetchall()}
        found = dict(sql.sql("SELECT parse_filename(uri), status FROM sources").fetchall())
    changed = {
        "films decoded": (counted["ingest"]["done"], 0),
        "captions made": (counted["captions"]["tables"].get("captions done"), 1),
        "clips encoded": (counted["latents"]["tables"].get("latents done"), 1),
    }
    wrong += [
        f"a changed length and caption: {number} {what}, not {said}"
        for what, (number, said) in changed.items()
        if number != said
    ]
    if drawn and found != {film: "failed" if film == "letter.mp4" else "done" for film in (*FILMS, *LATER)}:
        wrong.append(f"the sources are {found}")
    return wrong


def measured(seconds: Mapping[str, float], folder: Path) -> str:
    """The table of the page: seconds for each heading, and what they were measured on."""
    with connect(Catalog.open(str(folder / "catalog"))) as sql:
        films, minutes = sql.sql("SELECT count(*), sum(duration_s) / 60 FROM sources").fetchall()[0]
        clips, kept = sql.sql("SELECT count(*), count(*) FILTER (verdict = 'kept') FROM clips").fetchall()[0]
    rows = "".join(f"| {heading} | {taken:.0f} |\n" for heading, taken in seconds.items())
    total = sum(seconds.values())
    return (
        f"| step | seconds |\n| --- | --- |\n{rows}| all | {total:.0f} |\n\n"
        f"Of {films} files with {minutes:.1f} minutes of video, {clips} clips, {kept} kept; "
        f"{datetime.date.today()}, {os.cpu_count()} cores of {processor()}, which others used too.\n"
    )


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
