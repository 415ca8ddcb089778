"""Checkpoints on disk: a folder each, whole or absent, written by a thread while training goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

NUMBERS = "numbers.json"
NAME = re.compile(r"\d{8,}")

Tensors = dict[str, dict[str, Tensor]]


class Checkpoints:
    """`folder`/<step>/ holds a safetensors file per group of tensors and numbers.json; the last `keep` are kept.

    A checkpoint is written beside its place, synced and then renamed: whatever ends the process, and whenever, each
    folder with a step's name is whole.
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
        text = json.dumps(numbers)
        self.writer = threading.Thread(target=self._write, args=(step, copies, text, then), name="checkpoint")
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
        """(step, tensors, numbers) of the last one, on the CPU; None where there is none. ValueError, in one line, for
        one that can't be read.
        """
        self.wait()
        if not (steps := self.steps()):
            return None
        place = self.place(steps[-1])
        try:
            numbers = json.loads((place / NUMBERS).read_text())
            # Cloned out of the mapped file: it may be removed while its tensors are in use.
            tensors = {
                file.stem: {name: tensor.clone() for name, tensor in load_file(file).items()}
                for file in sorted(place.glob("*.safetensors"))
            }
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(
                f"{place} can't be read ({error}): with that folder removed, the checkpoint before it is taken"
            ) from error
        return steps[-1], tensors, numbers

    def place(self, step: int) -> Path:
        return self.folder / f"{step:08d}"

    def _write(self, step: int, tensors: Tensors, numbers: str, then: Callable[[Tensors], None] | None) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".*"):  # by a process that was killed, or whose disk was full
                shutil.rmtree(left, ignore_errors=True)
            part = self.folder / f".{step:08d}.part"
            part.mkdir()
            for group, each in tensors.items():
                save_file(each, part / f"{group}.safetensors")
            (part / NUMBERS).write_text(numbers + "\n")
            for file in part.iterdir():
                _sync(file)
            _sync(part)
            if self.place(step).exists():  # saved twice: the later one counts
                os.rename(self.place(step), self.folder / f".{step:08d}.old")
            os.rename(part, self.place(step))
            _sync(self.folder)
            shutil.rmtree(self.folder / f".{step:08d}.old", ignore_errors=True)
            for old in [each for each in self.steps() if each != step][: -self.keep + 1 or None]:
                # First out of sight: a checkpoint that is half removed must not be taken for one.
                hidden = self.folder / f".{old:08d}.gone"
                os.rename(self.place(old), hidden)
                shutil.rmtree(hidden, ignore_errors=True)
            if then is not None:
                then(tensors)
        except SafetensorError as error:  # a full disk, for one
            self.error = OSError(f"{self.folder}: the checkpoint of step {step} can't be written ({error})")
        except BaseException as error:
            self.error = error


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
