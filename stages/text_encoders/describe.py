"""Which text encoder settings name: from configs and the bytes of its weights, without torch."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.base import SettingsError
from stages.pretrained import weight_hash
from stages.pretrained.clip_models import CONFIG, HUB, WEIGHTS, ClipSource, available, find_model
from stages.pretrained.clip_registry import architectures, tags_of
from stages.pretrained.hub import cached, hub_file
from stages.pretrained.model_files import ModelFolder, fetched_beside, find
from stages.text_encoders.settings import TextEncoderSettings

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
LOCAL = "local-dir:"  # open_clip's prefix of a folder
NOT_CONTENT = ("transformers_version", "torch_dtype", "dtype")  # of a config: who saved it, and how


def describe_text(settings: TextEncoderSettings) -> dict[str, Any]:
    """What a contract says of the encoder: its name, the sha256 of its weights, config and tokenizer, the width of
    its vectors, and how many tokens of a caption it is given at most.

    Raises SettingsError, in one line, for what is no text encoder.
    """
    if is_open_clip(settings):
        return _open_clip(open_clip_source(settings), settings.max_tokens)
    found, tokenizer = transformers_files(settings)
    return _transformers(found, tokenizer, settings.max_tokens)


def is_open_clip(settings: TextEncoderSettings) -> bool:
    """Whether the model is one of OpenCLIP: it has a tag, open_clip's prefix or config, or one of its names."""
    model = settings.model
    if settings.pretrained or model.startswith((HUB, LOCAL)):
        return True
    folder = Path(model).expanduser()
    if folder.is_dir():
        return (folder / CONFIG).is_file()
    return importlib.util.find_spec("open_clip") is not None and model.replace("/", "-") in architectures()


def open_clip_source(settings: TextEncoderSettings) -> ClipSource:
    """Raises SettingsError also for a text tower that has no hidden states of its own tokens."""
    for name in ("subfolder", "revision"):
        if getattr(settings, name):
            raise SettingsError(f"model {settings.model!r} is one of OpenCLIP: leave `{name}` out")
    source = find_model(settings.model, settings.pretrained)
    text = json.loads(source.config)["text_cfg"]
    if inner := text.get("hf_model_name"):
        raise SettingsError(f"model {source.name} reads text through {inner}: name that model itself")
    if text.get("embed_cls"):
        raise SettingsError(f"model {source.name} (CoCa) has no normalised states of its text: take another one")
    return source


def transformers_files(settings: TextEncoderSettings) -> tuple[ModelFolder, Path]:
    """The model's files and the folder of its tokenizer: its own or, in a pipeline, the one beside it."""
    found = find(settings.model, settings.subfolder, settings.revision, part="text_encoder", what="text encoder")
    for beside in (found.folder, found.folder.parent / found.folder.name.replace("text_encoder", "tokenizer")):
        fetched_beside(settings.model, found, beside, TOKENIZER)
        if any((beside / name).is_file() for name in TOKENIZER):
            return found, beside
    raise SettingsError(f"model {settings.model!r} has no tokenizer ({TOKENIZER[0]}) beside its weights")


def _transformers(found: ModelFolder, tokenizer: Path, max_tokens: int) -> dict[str, Any]:
    config = found.config
    text = config.get("text_config") or {}  # of a model of pictures and text, CLIP for one
    wide = next((part[key] for part in (text, config) for key in ("hidden_size", "d_model") if part.get(key)), None)
    if not isinstance(wide, int) or not config.get("model_type"):
        raise SettingsError(f"model {found.name!r} is no text encoder: its config says no model_type and width")
    said = {key: value for key, value in config.items() if not key.startswith("_") and key not in NOT_CONTENT}
    beside = [path for name in TOKENIZER if (path := tokenizer / name).is_file()]
    return {
        "encoder": found.name,
        "fingerprint": weight_hash.fingerprint(json.dumps(said, sort_keys=True), found.weights, beside),
        "dim": wide,
        "max_tokens": min(max_tokens, positions(config)),
    }


def positions(config: Mapping[str, Any]) -> int:
    """How many tokens a model of that config can see."""
    text = config.get("text_config") or {}
    kind = text.get("model_type") or config["model_type"]
    known = 77 if kind in ("clip", "clip_text_model") else 1 << 30  # CLIP's own, where its config leaves it out
    most = text.get("max_position_embeddings") or config.get("max_position_embeddings") or known
    offset = (config.get("pad_token_id") or 0) + 1 if "roberta" in kind else 0  # they count from behind the padding
    return int(most) - offset


def _open_clip(source: ClipSource, max_tokens: int) -> dict[str, Any]:
    config = json.loads(source.config)
    weights = Path(source.weights) if source.weights else _from_hub(source)
    folder = Path(source.model)
    beside = [path for name in TOKENIZER if folder.is_dir() and (path := folder / name).is_file()]
    return {
        "encoder": source.name,
        "fingerprint": weight_hash.fingerprint(json.dumps(config, sort_keys=True), [weights], beside),
        "dim": config["text_cfg"].get("width", 512),  # what open_clip takes where a config says nothing
        "max_tokens": min(max_tokens, config["text_cfg"].get("context_length", 77)),
    }


def _from_hub(source: ClipSource) -> Path:
    """The file that open_clip loads, fetched unless it was before."""
    available(source)
    if source.model.startswith(HUB):
        repository, files = source.model.removeprefix(HUB), WEIGHTS
    else:
        _, place = tags_of(source.model).get(source.pretrained or "", (False, ""))
        repository, _, file = place.rpartition("/")
        files = (file,) if file else WEIGHTS
    advice = "give `pretrained` the path of a local checkpoint"
    if not repository:
        raise SettingsError(f"model {source.name}: its tag names no file on the hub; {advice}")
    if path := cached(repository, files):
        return Path(path)
    failed: SettingsError | None = None
    for file in files:
        try:
            return Path(hub_file(repository, file, advice))
        except SettingsError as error:
            failed = failed or error
    assert failed is not None
    raise failed
