"""Checkpoints of a training run: one folder per step, whole or absent, written by a thread while training goes on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from models.files import sync, write_whole
from models.tensors import read_tensors, write_tensors

NUMBERS = "numbers.json"
NAME = re.compile(r"\d{8,}")

Tensors = dict[str, dict[str, Tensor]]


class Checkpoints:
    """`folder`/<step>/ holds a safetensors file per group of tensors and numbers.json; the last `keep` are kept.

    numbers.json holds the step, and under "files" the hash of each other file, so that only files saved together are
    read together. A checkpoint is written to a hidden folder, synced and renamed: each folder with a step's name is
    whole, whenever the process is killed.
    """

    def __init__(self, folder: str | Path, keep: int = 3):
        if keep < 1:
            raise ValueError(f"keep {keep!r}: at least one checkpoint")
        self.folder, self.keep = Path(folder), keep
        for replaced in self.folder.glob(".*.old"):  # a process was killed between two renames
            if not (place := self.folder / replaced.name.split(".")[1]).exists():
                os.rename(replaced, place)
        self.writer: threading.Thread | None = None
        self.error: BaseException | None = None

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        numbers: Mapping[str, Any],
        wait: bool = False,
        then: Callable[[Tensors], None] | None = None,
        copied: bool = False,
    ) -> None:
        """Copies the tensors to CPU memory and returns while a thread writes them; with `wait`, returns when they are
        written. With `copied` the tensors are copies already, on the CPU, that nothing else changes.

        `tensors` are groups by name, each a flat dict; `numbers` is what JSON takes. When the checkpoint is written the
        thread calls `then` with the copies. First waits for the checkpoint before, and raises its error if writing it
        failed.
        """
        self.wait()
        copies = {
            group: {name: tensor if copied else _copied(tensor) for name, tensor in each.items()}
            for group, each in tensors.items()
        }
        numbers = json.loads(json.dumps({**numbers, "step": step}))  # a copy too
        self.writer = threading.Thread(target=self._write, args=(step, copies, numbers, then), name="checkpoint")
        self.writer.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is on disk. Raises its error if it failed."""
        if self.writer is not None:
            self.writer.join()
            self.writer = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def steps(self) -> list[int]:
        """The steps of the checkpoints on disk, rising."""
        if not self.folder.is_dir():
            return []
        return sorted(int(each.name) for each in self.folder.iterdir() if NAME.fullmatch(each.name))

    def latest(self) -> tuple[int, Tensors, dict[str, Any]] | None:
        """(step, tensors, numbers) of the last one, on the CPU; None where there is none. Raises ValueError, in one
        line that names the file, where a file is missing or was changed.
        """
        self.wait()
        if not (steps := self.steps()):
            return None
        place = self.place(steps[-1])
        try:
            numbers = _numbers(place)
            files = numbers.pop("files")
            for name, digest in files.items():
                if _digest(place / name) != digest:
                    raise ValueError(f"{name} is not as it was saved")
            tensors = {Path(file).stem: read_tensors(place / file) for file in sorted(files)}
        except (OSError, ValueError) as error:
            said = str(error)
            if isinstance(error, OSError) and error.filename:
                said = f"{Path(error.filename).name}: {error.strerror}"
            raise ValueError(
                f"{place} can't be read ({said}): with that folder removed, the checkpoint before it is taken"
            ) from error
        return steps[-1], tensors, numbers

    def place(self, step: int) -> Path:
        return self.folder / f"{step:08d}"

    def _write(
        self, step: int, tensors: Tensors, numbers: dict[str, Any], then: Callable[[Tensors], None] | None
    ) -> None:
        part = self.folder / f".{step:08d}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".*"):  # left by a process that was killed, or whose disk was full
                shutil.rmtree(left, ignore_errors=True)
            part.mkdir()
            for group, each in tensors.items():
                write_tensors(part / f"{group}.safetensors", each)
            numbers["files"] = {file.name: _digest(file) for file in sorted(part.iterdir())}
            write_whole(part / NUMBERS, json.dumps(numbers) + "\n")
            if self.place(step).exists():  # the same step again: the later one replaces it
                os.rename(self.place(step), self.folder / f".{step:08d}.old")
            os.rename(part, self.place(step))
            sync(self.folder)
            shutil.rmtree(self.folder / f".{step:08d}.old", ignore_errors=True)
            for old in [each for each in self.steps() if each != step][: -self.keep + 1 or None]:
                # Renamed first, so that a half removed folder is never taken for a checkpoint.
                hidden = self.folder / f".{old:08d}.gone"
                os.rename(self.place(old), hidden)
                shutil.rmtree(hidden, ignore_errors=True)
            if then is not None:
                then(tensors)
        except BaseException as error:
            self.error = error
        finally:
            shutil.rmtree(part, ignore_errors=True)  # exists only where writing failed; frees a full disk


def _numbers(place: Path) -> dict[str, Any]:
    """What numbers.json says. Raises ValueError where it is damaged, or of another step than the folder's name."""
    try:
        numbers = json.loads((place / NUMBERS).read_text(encoding="utf-8"))
        step, files = numbers["step"], numbers["files"]
        whole = all(isinstance(each, str) for pair in files.items() for each in pair)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{NUMBERS} does not say the step and the hashes of the files: {error!r}") from error
    if not whole or step != int(place.name):
        raise ValueError(f"{NUMBERS} is of step {step!r}")
    return numbers


def _digest(path: Path) -> str:
    """128 bits of BLAKE2b over the file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
