"""The files of a model, from a local folder or a hub: found, and fetched where they are not here yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base import SettingsError, one_line
from stages.pretrained.lookup import CONFIG, config_at, local_folder

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


def find(model: str, subfolder: str | None, revision: str | None, part: str, what: str) -> ModelFolder:
    """A local folder or a name on the hub; of a whole pipeline its `subfolder`, by default the one named `part`.

    From the hub it fetches the config and the weights, unless they are in its cache. Raises SettingsError, in one
    line with the fix, where there is no such model, or none that is `what`.
    """
    if local := local_folder(model):
        root = local.absolute()  # workers stand in other folders
    else:
        small = [*SMALL, *(f"{subfolder or part}/{each}" for each in SMALL)]
        root = _fetched(model, revision, small, lambda root: (_inside(root, subfolder, part) / CONFIG).is_file())
    folder = _inside(root, subfolder, part)
    config = config_at(folder / CONFIG, _place(model, subfolder), what)
    weights = weight_files(folder) if local else _weights_of_hub(model, root, folder)
    if not weights:
        raise SettingsError(f"{_place(model, subfolder)} holds no weights ({', '.join(WEIGHTS)})")
    return ModelFolder(folder.resolve().name if local else model, root, folder, config, weights)


def fetched_beside(model: str, found: ModelFolder, folder: Path, names: Sequence[str]) -> None:
    """Fetches files of those names into a `folder` of the same repository, where none is there and it is on a hub."""
    if not local_folder(model):
        wanted = [str(folder.relative_to(found.root) / name) for name in names]
        _fetched(model, found.root.name, wanted, lambda root: any((folder / name).is_file() for name in names))


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


def _weights_of_hub(model: str, root: Path, folder: Path) -> tuple[Path, ...]:
    """Those of the commit whose config is in `folder`: its snapshot, `root`, has the commit's name."""

    def whole() -> tuple[Path, ...]:
        try:
            return weight_files(folder)
        except SettingsError:  # some of them are not here yet
            return ()

    for kind in WEIGHTS:
        _fetched(model, root.name, [str(folder.relative_to(root) / f"*{kind}")], lambda root: bool(whole()))
        if whole():
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


def _fetched(model: str, revision: str | None, patterns: list[str], enough: Callable[[Path], bool]) -> Path:
    """The snapshot's folder with the files that match: as it is in the cache if that is `enough`, else from the hub."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise SettingsError(f"model {model!r} is no folder here, and fetching it takes huggingface_hub") from error
    try:
        root = Path(huggingface_hub.snapshot_download(model, revision=revision, local_files_only=True))
        if enough(root):
            return root
    except Exception:  # nothing of it is in the cache
        pass
    from stages.pretrained.lookup import HUB_SECONDS

    try:
        # Asked first because it answers at once without a network, where a download tries for half a minute.
        commit = huggingface_hub.HfApi().model_info(model, revision=revision, timeout=HUB_SECONDS).sha
        return Path(huggingface_hub.snapshot_download(model, revision=commit, allow_patterns=patterns))
    except RevisionNotFoundError:
        raise SettingsError(f"model {model!r} has no revision {revision!r} on the hub") from None
    except RepositoryNotFoundError:
        raise SettingsError(
            f"model {model!r}: neither a folder here nor a model on the hub that can be read without `hf auth login`"
        ) from None
    except Exception as error:  # the HTTP client's own classes: no network, a proxy's refusal, offline mode
        raise SettingsError(
            f"model {model!r} is no folder here and the hub can't be asked for it ({one_line(error)[:200]}): "
            f"give the path of a folder that holds it"
        ) from error
