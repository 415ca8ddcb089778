"""Notes of the runs that learned from a dataset, a catalog or another run, left there for `clipmill trace` to find."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from curate.errors import first_line
from curate.storage import filesystem, is_local, join, local_path
from models.files import write_whole
from train.run.lineage import CONFIG, MODEL, Ancestor

NOTES = "_runs"  # a folder in the dataset, catalog or run


@dataclass(frozen=True)
class RunNote:
    """A run, and the folder that it was in when it last began or went on."""

    run_id: str
    folder: str


def note_run(place: str, run: Path, run_id: str) -> None:
    """Leaves a note of a run at what it learns from. A place that can't be written is no error: it is said."""
    content = json.dumps({"run_id": run_id, "folder": str(run.absolute())}).encode()
    path = join(place, NOTES, f"{run_id}.json")
    try:
        if is_local(place):
            local = Path(local_path(path))
            local.parent.mkdir(exist_ok=True)
            write_whole(local, content)
        else:
            fs, inside = filesystem(path)
            fs.pipe_file(inside, content)
    except Exception as error:  # each store has its own exceptions
        said = f"{join(place, NOTES)} can't be written ({first_line(error)})"
        print(f"note: {said}: `clipmill trace` finds this run with --runs {run}", file=sys.stderr)


def note_descendant(ancestors: Iterable[Ancestor], run: Path, run_id: str) -> None:
    """Leaves a note of a run in the folders of those that it began with or learned from."""
    for each in ancestors:
        place = Path(each.path)
        place = place.parent if place.name == MODEL else place
        if each.run_id is not None and (place / CONFIG).is_file():
            note_run(str(place), run, run_id)


def run_notes(place: str) -> list[RunNote]:
    """The notes at a place, by id. Those that can't be read are left out, as nothing but the run depends on them."""
    fs, inside = filesystem(join(place, NOTES))
    try:
        paths = sorted(fs.ls(inside, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for path in paths:
        if path.endswith(".json"):
            try:
                about = json.loads(fs.cat_file(path))
                found.append(RunNote(about["run_id"], about["folder"]))
            except (ValueError, KeyError, TypeError):
                continue
    return found
