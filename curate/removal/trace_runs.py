"""The folders of training runs: where they are, and what each says of its weights, its data and its ancestors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import UserError
from models.files import read_object
from train.run.lineage import CONFIG, MODEL, RUN_ID, Ancestor, ancestors_of, models_of

KINDS = ("dit", "tokens", "vae")
CHECKPOINTS, LOG = "checkpoints", "log.jsonl"
TAIL = 1 << 16  # bytes at the end of a log that hold its last step


@dataclass(frozen=True)
class Weights:
    """Weights that a run has left, or those of its last step that no file holds: `what` is 'checkpoint', 'model' or
    'last step'.
    """

    what: str
    step: int


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run of `clipmill train` as its folder tells of it."""

    folder: Path
    config: dict[str, Any]  # config.json: the settings and what is recorded beside them

    @property
    def run_id(self) -> str:
        return self.config.get(RUN_ID) or str(self.folder)

    @property
    def is_vae(self) -> bool:
        return bool(self.config["kind"] == "vae")

    @property
    def ancestors(self) -> list[Ancestor]:
        return ancestors_of(self.config)

    @property
    def models(self) -> dict[str, int]:
        """Of a VAE: fingerprint -> step of each model that the run has written."""
        return models_of(self.folder)

    def weights(self) -> list[Weights]:
        """By step. The last step is named where its weights were not saved, or not yet."""
        found = [Weights("checkpoint", step) for step in self.checkpoints()]
        about = read_object(self.folder / MODEL / CONFIG)
        step = self.models.get(about.get("fingerprint", "")) if self.is_vae else about.get("extra", {}).get("step")
        if isinstance(step, int):
            found.append(Weights("model", step))
        if (last := self.last_step()) > max((each.step for each in found), default=0):
            found.append(Weights("last step", last))
        return sorted(found, key=lambda each: each.step)

    def checkpoints(self) -> list[int]:
        """The steps of those on disk."""
        place = self.folder / CHECKPOINTS
        return sorted(int(each.name) for each in place.iterdir() if each.name.isdigit()) if place.is_dir() else []

    def recorded_order(self) -> int | None:
        """The identity of the loader's order in the last checkpoint; None without one."""
        for step in self.checkpoints()[-1:]:
            loader = read_object(self.folder / CHECKPOINTS / f"{step:08d}" / "numbers.json").get("loader") or {}
            return loader.get("order")
        return None

    def last_step(self) -> int:
        """Of the log; 0 without one."""
        try:
            with (self.folder / LOG).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                lines = file.read().splitlines()
        except OSError:
            return 0
        return max((line["step"] for line in map(_line, lines) if line), default=0)

    def log_lines(self, word: str) -> Iterator[dict[str, Any]]:
        """The lines of the log that have this key. UserError where there is no log."""
        try:
            with (self.folder / LOG).open("rb") as file:
                for text in file:  # most lines need no parsing: a log may have a million
                    if f'"{word}"'.encode() in text and (line := _line(text)) and word in line:
                        yield line
        except OSError as error:
            raise UserError(
                f"{self.folder / LOG} can't be read, so it is not known which samples were skipped"
            ) from error


def read_run(folder: Path) -> RunRecord | None:
    """The run in a folder; None where there is none."""
    config = read_object(folder / CONFIG)
    if config.get("kind") not in KINDS:
        return None
    there = any((folder / name).exists() for name in (LOG, CHECKPOINTS, MODEL))
    return RunRecord(folder.absolute(), config) if there else None


def runs_below(place: str) -> list[RunRecord]:
    """The run in a folder, or all those in the folders below it. UserError where there is none."""
    root = Path(place)
    if not root.is_dir():
        raise UserError(f"--runs {place}: there is no such folder")
    found = []
    for folder, below, files in os.walk(root):
        if CONFIG in files and (run := read_run(Path(folder))) is not None:
            found.append(run)
            below.clear()
        below.sort()
    if not found:
        raise UserError(
            f"--runs {place}: no run of `clipmill train` is in this folder or below it (no {CONFIG} of one)"
        )
    return found


def _line(text: bytes) -> dict[str, Any] | None:
    """A line of a log; None for one that is cut off."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None


def unique(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Each run once: of copies of a run, the one that went on furthest."""
    found: dict[str, RunRecord] = {}
    for run in runs:
        other = found.get(run.run_id)
        if other is None or run.last_step() > other.last_step():
            found[run.run_id] = run
    return list(found.values())
