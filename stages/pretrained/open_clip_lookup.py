"""Finds which OpenCLIP model the settings name, and what is known of it before it is loaded.

A model is a name of open_clip with a pretrained tag or a local checkpoint, a local folder that holds
`open_clip_config.json` and the weights, or `hf-hub:ORG/REPO`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from stages.base import SettingsError
from stages.pretrained.hub import cached, cached_or_reachable, hub_file
from stages.pretrained.lookup import HUB, named_path
from stages.pretrained.open_clip_names import (
    DEFAULT_MODEL,
    DEFAULT_TAG,
    architectures,
    nearest,
    require_open_clip,
    tags_of,
)
from stages.pretrained.weight_hash import REVISION_DIGITS, files_hash

CONFIG = "open_clip_config.json"
FOLDER = "local-dir:"  # open_clip's prefix of a folder
CHECKPOINT_ADVICE = "give `pretrained` the path of a local checkpoint"
# The order in which open_clip looks for the weights of a folder.
WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip


@dataclass(frozen=True)
class OpenClipSpec:
    """A model found but not loaded. `model` and `pretrained` are what open_clip is told."""

    name: str  # 'ViT-L-14/laion2b_s32b_b82k', the folder's name: what goes into the rows
    model: str
    pretrained: str | None
    config: str  # the architecture, as JSON
    weights: str | None  # the local file of the weights, None where a hub has them

    @property
    def schema(self) -> str:
        """The model by open_clip's own rules: a folder has a prefix."""
        return f"{FOLDER}{self.model}" if os.path.isabs(self.model) else self.model

    @property
    def image_size(self) -> int:
        """Long side of the pictures that the network sees, pixels."""
        size = json.loads(self.config)["vision_cfg"].get("image_size", 224)
        return max(size) if isinstance(size, list) else size

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return json.loads(self.config)["embed_dim"]

    @property
    def advice(self) -> str:
        """What to do where the weights can't be had from a hub."""
        if self.pretrained:
            return CHECKPOINT_ADVICE
        return f"give `model` the path of a local folder with {CONFIG} and the weights"

    def content(self) -> str:
        """Hash of the local weights, 16 hex digits; '' where a tag names them."""
        return files_hash("", [Path(self.weights)])[:REVISION_DIGITS] if self.weights else ""

    def on_hub(self) -> tuple[str, tuple[str, ...]]:
        """(repository, file names, the first that exists has the weights); ('', ...) where its tag names none."""
        if self.model.startswith(HUB):
            return self.model.removeprefix(HUB), WEIGHTS
        _, place = tags_of(self.model).get(self.pretrained or "", (False, ""))
        repository, _, file = place.rpartition("/")
        return repository, (file,) if file else WEIGHTS


def find_model(model: str = DEFAULT_MODEL, pretrained: str | None = None) -> OpenClipSpec:
    """The model that settings name, without importing torch. SettingsError: unknown names, files not there."""
    require_open_clip()
    if model.startswith(HUB):
        return _from_hub(model)
    known = architectures()
    cleaned = model.replace("/", "-")
    if cleaned not in known or named_path(model).is_dir():
        return _in_folder(model, known)
    config = json.loads(known[cleaned].read_text())
    pretrained = pretrained or DEFAULT_TAG
    tags = tags_of(cleaned)
    tag = pretrained.lower().replace("-", "_")
    if tag in tags:
        quick = bool(config.get("quick_gelu"))
        other = cleaned.removesuffix("-quickgelu") if quick else f"{cleaned}-quickgelu"
        if quick != tags[tag][0] and other != cleaned and other in known:  # open_clip only warns, and embeds wrongly
            raise SettingsError(f"pretrained tag {tag!r} was trained with another activation: use model: {other}")
        return OpenClipSpec(f"{cleaned}/{tag}", cleaned, tag, json.dumps(config), None)
    path = os.path.abspath(named_path(pretrained))
    if os.path.isfile(path):
        return OpenClipSpec(f"{cleaned}/{Path(path).name}", cleaned, path, json.dumps(config), path)
    if os.sep in pretrained:
        raise SettingsError(f"pretrained: no checkpoint at {pretrained}")
    near = nearest(tag, tags, "tags")
    raise SettingsError(f"model {cleaned} has no pretrained tag {pretrained!r}: {near} A local checkpoint will do too")


def available(spec: OpenClipSpec) -> None:
    """SettingsError when the weights are on a hub that can't be reached and no copy is here."""
    if spec.weights is not None:
        return
    repository, files = spec.on_hub()
    if repository:
        cached_or_reachable(repository, files, spec.advice)


def fetch_weights(spec: OpenClipSpec) -> Path:
    """The file of weights that open_clip loads, downloaded unless it is here. SettingsError where it can't be had."""
    if spec.weights:
        return Path(spec.weights)
    available(spec)
    repository, files = spec.on_hub()
    if not repository:
        raise SettingsError(f"model {spec.name}: its tag names no file on the hub; {CHECKPOINT_ADVICE}")
    if path := cached(repository, files):
        return Path(path)
    errors = []
    for file in files:
        try:
            return Path(hub_file(repository, file, CHECKPOINT_ADVICE))
        except SettingsError as error:
            errors.append(error)
    raise errors[0]


def _in_folder(model: str, known: dict[str, Path]) -> OpenClipSpec:
    folder = Path(os.path.abspath(named_path(model.removeprefix(FOLDER))))
    if not folder.is_dir():
        if os.sep in model or model.startswith(("~", ".", FOLDER)):
            raise SettingsError(f"model: no folder {model}")
        near = nearest(model, known, "names")
        raise SettingsError(f"open_clip knows no model {model!r}: {near} A folder with {CONFIG} will do too")
    try:
        config = json.loads((folder / CONFIG).read_text())["model_cfg"]
        config["embed_dim"], config["vision_cfg"]
    except OSError as error:
        raise SettingsError(f"model: folder {model} has no {CONFIG}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"model: {folder / CONFIG} is no model configuration of open_clip") from error
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise SettingsError(f"model: folder {model} holds no weights ({WEIGHTS[0]})")
    return OpenClipSpec(folder.name, str(folder), None, json.dumps(config), str(weights))


def _from_hub(model: str) -> OpenClipSpec:
    advice = f"download it where there is a network and give its folder as `model`, with {CONFIG} and the weights"
    path = hub_file(model.removeprefix(HUB), CONFIG, advice)
    try:
        config = json.loads(Path(path).read_text())["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"model {model}: its {CONFIG} is no model configuration of open_clip") from error
    return OpenClipSpec(model.removeprefix(HUB), model, None, json.dumps(config), None)
