"""Finds the config and the weights of a model that transformers or diffusers can load, in a folder or on a hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base import SettingsError, one_line
from stages.pretrained.hub import snapshot
from stages.pretrained.lookup import local_folder

CONFIG = "config.json"
WEIGHTS = (".safetensors", ".bin")  # the first kind that there is
# What a pipeline's repository holds beside its networks; and files that a network comes with.
SMALL = ("*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True)
class ModelFolder:
    """A network's folder on this machine: `config` read, `weights` its files; `name` is what goes into a contract,
    the name on the hub or the folder's own.
    """

    name: str
    root: Path  # of the repository: the folder itself, unless it is one of a pipeline's
    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]


def find_folder(model: str, subfolder: str | None, revision: str | None, part: str, what: str) -> ModelFolder:
    """A local folder or a name on the hub; of a whole pipeline its `subfolder`, by default the one named `part`.

    From the hub it fetches the config and the weights, unless they are in its cache. Raises SettingsError, in one
    line with the fix, where there is no such model, or none that is `what`.
    """
    if local := local_folder(model):
        root = local.absolute()  # workers run in other working folders
    else:
        small = [*SMALL, *(f"{subfolder or part}/{each}" for each in SMALL)]
        root = snapshot(model, revision, small, lambda root: (_inside(root, subfolder, part) / CONFIG).is_file())
    folder = _inside(root, subfolder, part)
    config = config_at(folder / CONFIG, _place(model, subfolder), what)
    weights = weight_files(folder) if local else _weights_of_hub(model, root, folder)
    if not weights:
        raise SettingsError(f"{_place(model, subfolder)} holds no weights ({', '.join(WEIGHTS)})")
    return ModelFolder(folder.resolve().name if local else model, root, folder, config, weights)


def read_config(model: str, revision: str | None = None) -> dict[str, Any]:
    """The config.json of a transformers model; from the hub it takes one small file, or none if that is cached.

    Raises SettingsError, one line with the fix, where there is no such model or the hub can't be reached.
    """
    root = local_folder(model) or snapshot(model, revision, [CONFIG], lambda root: (root / CONFIG).is_file())
    return config_at(root / CONFIG, f"model {model!r}", "transformers model")


def config_at(path: Path, place: str, what: str) -> dict[str, Any]:
    """A model's config.json. Raises SettingsError where it is missing or damaged: `place` is then no `what`."""
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"{place} holds no {CONFIG}: it is no {what}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{place}: its {CONFIG} can't be read: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise SettingsError(f"{place}: its {CONFIG} is no JSON object")
    return config


def fetch_beside(model: str, found: ModelFolder, folder: Path, names: Sequence[str]) -> None:
    """Fetches files of those names into a `folder` of the same repository, if it is on a hub and none is there yet."""
    if not local_folder(model):
        wanted = [str(folder.relative_to(found.root) / name) for name in names]
        snapshot(model, found.root.name, wanted, lambda root: any((folder / name).is_file() for name in names))


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Those that transformers and diffusers load: what an index names, else the one file without a variant's name
    (fp16, ema); safetensors before .bin.
    """
    for kind in WEIGHTS:
        files = {path.name: path for path in folder.glob(f"*{kind}")}
        for index in sorted(folder.glob(f"*{kind}.index.json"), key=lambda path: len(path.name)):
            try:
                named = sorted(set(json.loads(index.read_text())["weight_map"].values()))
                return tuple(files[name] for name in named)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise SettingsError(f"{index} names weights that are not there: {one_line(error)}") from error
        for stem in ("diffusion_pytorch_model", "model", "pytorch_model"):
            if stem + kind in files:
                return (files[stem + kind],)
    return ()


def refuse_missing_weights(model: str, missing: Iterable[str]) -> None:
    """Raises SettingsError for weights that the files lack: transformers and diffusers would draw random ones."""
    if names := sorted(missing):
        raise SettingsError(f"{model} lacks {len(names)} of its weights, {names[0]} among them")


def _weights_of_hub(model: str, root: Path, folder: Path) -> tuple[Path, ...]:
    """Those of the commit whose config is in `folder`: its snapshot, `root`, has the commit's name."""

    def complete() -> tuple[Path, ...]:
        try:
            return weight_files(folder)
        except SettingsError:  # some of them are not here yet
            return ()

    for kind in WEIGHTS:
        snapshot(model, root.name, [str(folder.relative_to(root) / f"*{kind}")], lambda root: bool(complete()))
        if complete():
            break
    return weight_files(folder)


def _inside(root: Path, subfolder: str | None, part: str) -> Path:
    """The network's own folder, of one or of a pipeline's."""
    if subfolder:
        return root / subfolder
    pipeline = (root / "model_index.json").is_file() or not (root / CONFIG).is_file()
    return root / part if pipeline and (root / part).is_dir() else root


def _place(model: str, subfolder: str | None) -> str:
    return f"model {model!r}" + (f", subfolder {subfolder!r}," if subfolder else "")
