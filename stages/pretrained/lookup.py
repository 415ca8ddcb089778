"""Models by a local folder or by their name on the hub: what their config says, before anything heavy is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from stages.base import SettingsError, one_line

CONFIG = "config.json"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_SECONDS = 10.0  # patience with the hub when a recipe is checked


def local_folder(model: str) -> Path | None:
    """The folder that `model` names; None where it is a name on the hub. A folder of that name goes first.

    Raises SettingsError for what can only be meant as a path, and is no folder.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise SettingsError(f"model {model!r} is a file: name the folder that holds its config.json and weights")
    if model.startswith((".", "/", "~", "\\")) or not HUB_NAME.fullmatch(model):
        raise SettingsError(f"model {model!r}: no such folder")
    return None


def located(model: str) -> str:
    """A folder's absolute path, a name on the hub as it is: workers stand in other folders. To be called where the
    recipe is read. Raises SettingsError as `local_folder`.
    """
    folder = local_folder(model)
    return str(folder.absolute()) if folder else model


def read_config(model: str, revision: str | None = None) -> dict[str, Any]:
    """The config.json of a transformers model; from the hub it takes one small file, or none if that is cached.

    Raises SettingsError, one line with the fix, where there is no such model or the hub can't be reached.
    """
    folder = local_folder(model)
    path = folder / CONFIG if folder else _from_hub(model, revision)
    return config_at(path, f"model {model!r}", "transformers model")


def config_at(path: Path, place: str, what: str) -> dict[str, Any]:
    """A model's config.json. Raises SettingsError where there is none, told of `place`: it is then no `what`."""
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"{place} holds no {CONFIG}: it is no {what}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{place}: its {CONFIG} can't be read: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise SettingsError(f"{place}: its {CONFIG} is no JSON object")
    return config


def _from_hub(model: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    cached = huggingface_hub.try_to_load_from_cache(model, "config.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # Asked first because it answers at once without a network, where a download tries for half a minute.
        commit = huggingface_hub.HfApi().model_info(model, revision=revision, timeout=HUB_SECONDS).sha
        return Path(huggingface_hub.hf_hub_download(model, "config.json", revision=commit))
    except RevisionNotFoundError:
        raise SettingsError(f"model {model!r} has no revision {revision!r} on the hub") from None
    except RepositoryNotFoundError:
        raise SettingsError(
            f"model {model!r}: neither a folder here nor a model on the hub that can be read without `hf auth login`"
        ) from None
    except EntryNotFoundError:
        raise SettingsError(f"model {model!r} holds no config.json on the hub: it is no transformers model") from None
    except Exception as error:  # the HTTP client's own classes: no network, a proxy's refusal, offline mode
        raise SettingsError(
            f"model {model!r} is no folder here and the hub can't be asked for it ({one_line(error)}): "
            f"give the path of a folder that holds it, as `model: /path/to/folder`"
        ) from error
