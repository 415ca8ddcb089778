"""Finds the datasets and runs that may have seen clips of a catalog, and says which noted ones are not where they were.

A dataset leaves a note in its catalog, and a run in its dataset, in its catalog (a VAE's) and in the runs that it
learned from. What moved since is named by the user.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curate.catalog.catalog import Catalog
from curate.datasets.files import ABOUT, Dataset, open_dataset
from curate.errors import UserError
from curate.removal.trace_runs import RunRecord, read_run, runs_below, unique
from curate.shards.kept import DatasetNote, dataset_notes
from curate.storage import is_local
from curate.training.run_notes import RunNote, run_notes
from train.run.lineage import MODEL


@dataclass
class Found:
    """`problems` are what may have seen clips and can't be asked, a line for each."""

    datasets: list[Dataset] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find(catalog: Catalog, runs: Sequence[str], datasets: Sequence[str]) -> Found:
    """What notes and the folder datasets/ beside the catalog lead to, and what lies below the folders `runs` and
    `datasets`. UserError for one of these that holds nothing.
    """
    found = Found(runs=unique(run for place in runs for run in runs_below(place)))
    for place in datasets:
        _add_datasets(found, _datasets_below(place))
    if is_local(catalog.uri):
        _add_datasets(found, _folders(Path(catalog.path).parent / "datasets"))
    notes = dataset_notes(catalog)
    _add_datasets(found, [Path(note.folder) for note in notes if (Path(note.folder) / ABOUT).exists()])
    missing = _follow_notes(found, run_notes(catalog.uri))
    found.problems += [_missing_dataset(note) for note in notes if not _is_found(found, note)]
    known = {run.run_id for run in found.runs}
    found.problems += [
        f"the run {run_id[:8]} that {place} notes is not in {note.folder} on this machine: give --runs DIR"
        for run_id, (place, note) in sorted(missing.items())
        if run_id not in known
    ]
    return found


def _follow_notes(found: Found, noted: Sequence[RunNote]) -> dict[str, tuple[str, RunNote]]:
    """Adds runs that notes lead to, those that they learned from, their datasets, and what these note in turn. Gives
    the notes that lead nowhere.
    """
    missing: dict[str, tuple[str, RunNote]] = {}
    seen: set[str] = set()
    todo = [("the catalog", note) for note in noted]
    while True:
        for place, note in todo:
            run = read_run(Path(note.folder))
            if run is not None and run.run_id == note.run_id:
                found.runs = unique([*found.runs, run])
            else:
                missing[note.run_id] = place, note
        for run in list(found.runs):
            if dataset := run.config.get("dataset"):
                _add_datasets(found, [Path(dataset)] if (Path(dataset) / ABOUT).exists() else [])
            for ancestor in run.ancestors:
                path = Path(ancestor.path)
                parent = read_run(path.parent if path.name == MODEL else path)
                if parent is not None and parent.run_id == ancestor.run_id:
                    found.runs = unique([*found.runs, parent])
        places = [str(each.folder) for each in found.datasets] + [str(each.folder) for each in found.runs]
        todo = [(place, note) for place in places if place not in seen for note in run_notes(place)]
        if not todo and seen >= set(places):
            return missing
        seen |= set(places)


def _add_datasets(found: Found, folders: Sequence[Path]) -> None:
    """Adds the datasets in these folders that are not there yet; of copies of one, the first."""
    known = {each.identity for each in found.datasets}
    places = {each.folder for each in found.datasets}
    for folder in folders:
        folder = folder.absolute()
        if folder in places or any(str(folder) in problem for problem in found.problems):
            continue
        try:
            dataset = open_dataset(folder)
        except UserError as error:
            found.problems.append(str(error))
            continue
        if dataset.identity not in known:
            known.add(dataset.identity)
            places.add(folder)
            found.datasets.append(dataset)


def _datasets_below(place: str) -> list[Path]:
    if not Path(place).is_dir():
        raise UserError(f"--datasets {place}: there is no such folder")
    found = []
    for folder, below, files in os.walk(place):
        if ABOUT in files:
            found.append(Path(folder))
            below.clear()
        below.sort()
    if not found:
        raise UserError(f"--datasets {place}: no dataset is in this folder or below it (no {ABOUT})")
    return found


def _folders(place: Path) -> list[Path]:
    """The datasets directly in a folder."""
    return sorted(each.parent for each in place.glob(f"[!.]*/{ABOUT}"))


def _is_found(found: Found, note: DatasetNote) -> bool:
    return any(
        str(each.folder) == note.folder
        or (each.name == note.name and {shard.path for shard in each.shards} == set(note.shards))
        for each in found.datasets
    )


def _missing_dataset(note: DatasetNote) -> str:
    return (
        f"the dataset {note.name} is not in {note.folder} on this machine: give --datasets DIR, or delete {note.path} "
        "if nothing learned from it"
    )
