"""Says what the name of a model in a recipe means: a folder or file on this machine, or a repository of a model hub."""

from __future__ import annotations

import re
from pathlib import Path

from stages.base import SettingsError

HUB = "hf-hub:"  # before ORG/REPO where a bare name means something else, as for OpenCLIP models
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def named_path(model: str) -> Path:
    """The path that a model's name means if it is one; whether it exists is for the caller to check.

    Every name of a model in a recipe comes through here: another scheme of names becomes paths in this function.
    """
    return Path(model).expanduser()


def local_folder(model: str) -> Path | None:
    """The folder that `model` names; None where it is a name on the hub. A folder of that name goes first.

    Raises SettingsError for what can only be meant as a path, and is no folder.
    """
    path = named_path(model)
    if path.is_dir():
        return path
    if path.is_file():
        raise SettingsError(f"model {model!r} is a file: name the folder that holds its config.json and weights")
    if model.startswith((".", "/", "~", "\\")) or not HUB_NAME.fullmatch(model):
        raise SettingsError(f"model {model!r}: no such folder")
    return None


def located(model: str) -> str:
    """A folder's absolute path; a name on the hub as it is. Call it where the recipe is read, because workers run in
    other working folders. Raises SettingsError as `local_folder`.
    """
    folder = local_folder(model)
    return str(folder.absolute()) if folder else model
