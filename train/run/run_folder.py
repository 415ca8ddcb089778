"""The folder of a training run: config.json, log.jsonl, checkpoints/, model/ and samples/, its lock, and whether it may
be resumed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from models.files import write_whole
from models.saved import transformer_files
from models.settings.validation import ConfigError
from models.tensors import write_tensors
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer
from train.config.changes import differences
from train.run.checkpoints import Checkpoints, Tensors

CONFIG, CHECKPOINTS, MODEL, SAMPLES = "config.json", "checkpoints", "model", "samples"
EMPTY_TEXT = "empty_text.safetensors"  # in MODEL; its tensor is called "text", (L, D)
LOCK = ".lock"
_held: dict[tuple[int, int], IO[str]] = {}  # lock files by device and inode, open as long as they are locked


def check_folder(folder: Path, kind: str, resume: bool) -> None:
    """Raises ConfigError for a folder that holds something and is not to be resumed, or holds a run of another kind."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: a folder for the run is needed")
    if not resume and folder.is_dir() and any(each.name != LOCK for each in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: --resume goes on with the run in it, another -o begins a new one")
    if resume and (folder / CONFIG).exists():
        try:
            found = json.loads((folder / CONFIG).read_text())["kind"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{folder / CONFIG} is no run's ({error}): --resume goes on with a run") from error
        if found != kind:
            raise ConfigError(f"{folder} is a run of kind {found!r}, the config is of kind {kind!r}")


def lock(folder: Path) -> None:
    """Locks the folder for this process until `unlock` or its end. Raises ConfigError where another process holds the
    lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("a")
    status = os.fstat(file.fileno())
    if (status.st_dev, status.st_ino) in _held:
        file.close()
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ConfigError(f"{folder} is being trained by another process: one at a time, or another -o") from error
    except OSError:
        pass  # the file system has no locks
    _held[status.st_dev, status.st_ino] = file


def unlock(folder: Path) -> None:
    """Lets other processes resume the run."""
    try:
        status = (folder / LOCK).stat()
    except FileNotFoundError:  # somebody removed the folder
        return
    if file := _held.pop((status.st_dev, status.st_ino), None):
        file.close()


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Makes the folder if need be. The file is written whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def check_same_run(place: Path, saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises ConfigError, with both sides, where a checkpoint's numbers are of another model, contract, config or
    dataset than those of this run (`here`).
    """
    for what in ("model", "contract"):
        old, new = (each.get(what, {}) for each in (saved, here))
        found = [
            f"{name} {_short(old.get(name))} in the checkpoint, {_short(new.get(name))} here"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
        if found:
            raise ConfigError(f"{place} is of another {what}: {'; '.join(found)}")
    if found := differences(saved.get("config", {}), here["config"]):
        raise ConfigError(f"{place} is of another config: {'; '.join(found)}; with other settings begin a new run")
    if saved.get("identity") != here["identity"]:
        raise ConfigError(
            f"{place} is of another dataset: its samples have the hash {_short(saved.get('identity'))}, "
            f"those here {_short(here['identity'])}"
        )


def last_checkpoint(
    checkpoints: Checkpoints, here: Mapping[str, Any]
) -> tuple[Path, int, Tensors, dict[str, Any]] | None:
    """(place, step, tensors, numbers) of the last checkpoint; None where there is none yet. Raises ConfigError for one
    that is damaged, or of another run than `here`.
    """
    try:
        found = checkpoints.latest()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if found is None:
        return None
    step, tensors, numbers = found
    place = checkpoints.place(step)
    check_same_run(place, numbers, here)
    return place, step, tensors, numbers


def check_tensors(place: Path, saved: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> None:
    """Raises ConfigError, with both sides, where names, shapes or dtypes of weights differ."""
    if odd := sorted(set(saved) ^ set(here)):
        where = "only in the checkpoint" if odd[0] in saved else "not in the checkpoint"
        raise ConfigError(f"{place} is of another model: {odd[0]} is {where}")
    for name, tensor in here.items():
        old, new = ((tuple(each.shape), each.dtype) for each in (saved[name], tensor))
        if old != new:
            said = [f"{list(shape)} {str(dtype).removeprefix('torch.')}" for shape, dtype in (old, new)]
            raise ConfigError(f"{place} is of another model: {name} is {said[0]} in the checkpoint, {said[1]} here")


def save_model(
    folder: Path, network: DiT | TokenTransformer, tensors: Tensors, extra: dict[str, Any], empty: Tensor | None
) -> None:
    """Writes what `clipmill sample` needs to `folder`/model: the averaged weights with `extra`, and the encoded empty
    prompt.

    `network` only says what to build; weights and buffers come from the groups "ema" and "model".
    """
    built: DiT | TokenTransformer
    with torch.device("meta"):  # draws no weights, as this may run in a thread beside the training
        if isinstance(network, TokenTransformer):
            built = TokenTransformer(network.settings)
        else:
            built = DiT(network.settings)
    averaged = {name: value for name, value in tensors["ema"].items() if name in tensors["model"]}
    built.load_state_dict({**tensors["model"], **averaged}, assign=True)
    place = folder / MODEL
    place.mkdir(exist_ok=True)
    if empty is not None:
        write_tensors(place / EMPTY_TEXT, {"text": empty})
    transformer_files.save(built, place, extra)


def open_checkpoints(folder: Path, keep: int) -> Checkpoints:
    return Checkpoints(folder / CHECKPOINTS, keep)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:16]}…"
