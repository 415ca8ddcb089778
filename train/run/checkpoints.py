"""Checkpoints on disk: a folder each, whole or absent, written by a thread while training goes on."""

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

    numbers.json says the step, and under "files" the hash of each of the others: what is read is what was saved
    together, whole. A checkpoint is written beside its place, synced and then renamed: whatever ends the process, and
    whenever, each folder with a step's name is whole.
    """

    def __init__(self, folder: str | Path, keep: int = 3):
        if keep < 1:
            raise ValueError(f"keep {keep!r}: at least one checkpoint")
        self.folder, self.keep = Path(folder), keep
        for replaced in self.folder.glob(".*.old"):  # a process ended between two renames
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
    ) -> None:
        """Copies the tensors to the CPU's memory and returns; a thread writes them. With `wait`, after that.

        `tensors` are groups by name, each a flat dict; `numbers` is what JSON takes. Once the checkpoint is there,
        the thread calls `then` with the copies. Waits for the one before, and raises what its writing raised.
        """
        self.wait()
        copies = {group: {name: _copied(tensor) for name, tensor in each.items()} for group, each in tensors.items()}
        numbers = json.loads(json.dumps({**numbers, "step": step}))  # a copy too
        self.writer = threading.Thread(target=self._write, args=(step, copies, numbers, then), name="checkpoint")
        self.writer.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until what was saved is on disk. Raises what writing raised."""
        if self.writer is not None:
            self.writer.join()
            self.writer = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def steps(self) -> list[int]:
        """The steps there are, rising."""
        if not self.folder.is_dir():
            return []
        return sorted(int(each.name) for each in self.folder.iterdir() if NAME.fullmatch(each.name))

    def latest(self) -> tuple[int, Tensors, dict[str, Any]] | None:
        """(step, tensors, numbers) of the last one, on the CPU; None where there is none. ValueError, in one line that
        names the file, for one of which something is missing or is not as it was saved.
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
            said = f"{Path(error.filename).name}: {error.strerror}" if getattr(error, "filename", None) else error
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
            for left in self.folder.glob(".*"):  # by a process that was killed, or whose disk was full
                shutil.rmtree(left, ignore_errors=True)
            part.mkdir()
            for group, each in tensors.items():
                write_tensors(part / f"{group}.safetensors", each)
            numbers["files"] = {file.name: _digest(file) for file in sorted(part.iterdir())}
            write_whole(part / NUMBERS, json.dumps(numbers) + "\n")
            if self.place(step).exists():  # saved twice: the later one counts
                os.rename(self.place(step), self.folder / f".{step:08d}.old")
            os.rename(part, self.place(step))
            sync(self.folder)
            shutil.rmtree(self.folder / f".{step:08d}.old", ignore_errors=True)
            for old in [each for each in self.steps() if each != step][: -self.keep + 1 or None]:
                # First out of sight: a checkpoint that is half removed must not be taken for one.
                hidden = self.folder / f".{old:08d}.gone"
                os.rename(self.place(old), hidden)
                shutil.rmtree(hidden, ignore_errors=True)
            if then is not None:
                then(tensors)
        except BaseException as error:
            self.error = error
        finally:
            shutil.rmtree(part, ignore_errors=True)  # there only where writing failed: a full disk has room again


def _numbers(place: Path) -> dict[str, Any]:
    """ValueError, too, for those of another step than the folder's."""
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
    """BLAKE2b of the file, 128 bits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
