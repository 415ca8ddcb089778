"""Describes the text encoder that settings name, from its config, weights and tokenizer, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.base import SettingsError
from stages.pretrained.lookup import HUB, named_path
from stages.pretrained.model_files import ModelFolder, fetch_beside, find_folder
from stages.pretrained.open_clip_lookup import CONFIG, FOLDER, OpenClipSpec, fetch_weights, find_model
from stages.pretrained.open_clip_names import architectures
from stages.pretrained.packages import installed
from stages.pretrained.weight_hash import files_hash
from stages.text_encoders.settings import TextEncoderSettings

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
NOT_CONTENT = ("transformers_version", "torch_dtype", "dtype")  # keys of a config that say how it was saved


def describe_text(settings: TextEncoderSettings) -> dict[str, Any]:
    """What a contract says of the encoder: its name, the sha256 of its weights, config and tokenizer, the width of
    its vectors, and the maximum number of tokens of a caption.

    Raises SettingsError, in one line, for what is no text encoder.
    """
    if is_open_clip(settings):
        return _open_clip(open_clip_spec(settings), settings.max_tokens)
    found, tokenizer = transformers_files(settings)
    return _transformers(found, tokenizer, settings.max_tokens)


def is_open_clip(settings: TextEncoderSettings) -> bool:
    """Whether the model is one of OpenCLIP: it has a tag, open_clip's prefix or config, or one of its names."""
    model = settings.model
    if settings.pretrained or model.startswith((HUB, FOLDER)):
        return True
    folder = named_path(model)
    if folder.is_dir():
        return (folder / CONFIG).is_file()
    return installed("open_clip") and model.replace("/", "-") in architectures()


def open_clip_spec(settings: TextEncoderSettings) -> OpenClipSpec:
    """Raises SettingsError also for a text tower that has no hidden states of its own tokens."""
    for name in ("subfolder", "revision"):
        if getattr(settings, name):
            raise SettingsError(f"model {settings.model!r} is one of OpenCLIP: leave `{name}` out")
    spec = find_model(settings.model, settings.pretrained)
    text = json.loads(spec.config)["text_cfg"]
    if inner := text.get("hf_model_name"):
        raise SettingsError(f"model {spec.name} reads text through {inner}: name that model itself")
    if text.get("embed_cls"):
        raise SettingsError(f"model {spec.name} (CoCa) has no normalised states of its text: take another one")
    return spec


def transformers_files(settings: TextEncoderSettings) -> tuple[ModelFolder, Path]:
    """The model's files and the folder of its tokenizer: its own or, in a pipeline, the one beside it."""
    found = find_folder(settings.model, settings.subfolder, settings.revision, part="text_encoder", what="text encoder")
    for beside in (found.folder, found.folder.parent / found.folder.name.replace("text_encoder", "tokenizer")):
        fetch_beside(settings.model, found, beside, TOKENIZER)
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
        "fingerprint": files_hash(json.dumps(said, sort_keys=True), found.weights, beside),
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


def _open_clip(spec: OpenClipSpec, max_tokens: int) -> dict[str, Any]:
    config = json.loads(spec.config)
    folder = Path(spec.model)
    beside = [path for name in TOKENIZER if folder.is_dir() and (path := folder / name).is_file()]
    return {
        "encoder": spec.name,
        "fingerprint": files_hash(json.dumps(config, sort_keys=True), [fetch_weights(spec)], beside),
        "dim": config["text_cfg"].get("width", 512),  # what open_clip takes where a config says nothing
        "max_tokens": min(max_tokens, config["text_cfg"].get("context_length", 77)),
    }
