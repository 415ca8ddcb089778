"""Says what the name of a model means: a folder or file on this machine, one that ships, or a repository of a hub."""

from __future__ import annotations

import re
from pathlib import Path

from stages.base import SettingsError

HUB = "hf-hub:"  # before ORG/REPO where a bare name means something else, as for OpenCLIP models
SHIPPED = "clipmill:"  # before the name of a model that is installed with clipmill, as in clipmill:tiny_clip
SHIPPED_FOLDER = Path(__file__).resolve().parent / "shipped"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def named_path(model: str) -> Path:
    """The path that a model's name means if it is one; whether it exists is for the caller to check.

    Every name of a model comes through here, so that `clipmill:NAME` works in any setting. Raises SettingsError for a
    NAME that does not ship.
    """
    return shipped(model.removeprefix(SHIPPED)) if model.startswith(SHIPPED) else Path(model).expanduser()


def shipped(name: str) -> Path:
    """The folder of a model that is installed with clipmill. Raises SettingsError, with the names that there are."""
    names = sorted(path.name for path in SHIPPED_FOLDER.iterdir() if path.is_dir())
    if name not in names:
        known = ", ".join(f"{SHIPPED}{each}" for each in names)
        raise SettingsError(f"model '{SHIPPED}{name}' does not ship with clipmill; these do: {known}")
    return SHIPPED_FOLDER / name


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
    """A folder's absolute path; a name on the hub or one that ships as it is. Call it where the recipe is read, because
    workers run in other working folders. Raises SettingsError as `local_folder`.
    """
    folder = local_folder(model)
    return str(folder.absolute()) if folder and not model.startswith(SHIPPED) else model
