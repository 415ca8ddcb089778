"""Lists the architectures and pretrained tags that open_clip knows, without importing it, which takes seconds."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from stages.base import SettingsError
from stages.pretrained.packages import require_packages

DEFAULT_MODEL, DEFAULT_TAG = "ViT-L-14", "laion2b_s32b_b82k"
Tags = dict[str, tuple[bool, str]]  # tag -> (trained with QuickGELU, repository on the hub or '')


def require_open_clip() -> None:
    """SettingsError when it is not installed."""
    require_packages("torch", "open_clip", extra="clip")


@functools.cache
def architectures() -> dict[str, Path]:
    """name -> the JSON file of its configuration."""
    return {path.stem: path for path in (_package() / "model_configs").glob("*.json")}


def tags_of(model: str) -> Tags:
    """The pretrained tags of an architecture; none for one that open_clip does not know."""
    own = _all_tags().get(model)
    if own is None and model.endswith("-quickgelu"):  # the same weights, for those trained that way
        plain = _all_tags().get(model.removesuffix("-quickgelu"), {})
        return {tag: entry for tag, entry in plain.items() if entry[0]}
    return own or {}


def nearest(word: str, words: Iterable[str], what: str) -> str:
    """'did you mean ViT-L-14?' by spelling, or some of what there is."""
    words = sorted(words)
    by_lower = {other.lower(): other for other in words}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    if near:
        return f"did you mean {by_lower[near[0]]}?"
    return f"{what} are {', '.join(words[:8])}." if words else f"there are no {what}."


def _package() -> Path:
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("open_clip is no package here: pip install 'clipmill[clip]'")
    return Path(spec.submodule_search_locations[0])


@functools.cache
def _all_tags() -> dict[str, Tags]:
    """The tags of every architecture: parsed from the source of open_clip's table {architecture: dict of tags}.

    If a release writes that table in another form, open_clip is imported and asked.
    """
    groups: dict[str, Tags] = {}
    for node in ast.parse((_package() / "pretrained.py").read_text()).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name, value = node.targets[0].id, node.value
        if isinstance(value, ast.Dict) and value.keys:
            return {
                key.value: groups[tags.id] if isinstance(tags, ast.Name) else _tags(tags)
                for key, tags in zip(value.keys, value.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
        groups[name] = _tags(value)
    import open_clip

    found: dict[str, Tags] = {}
    for model, tag in open_clip.list_pretrained():
        entry = open_clip.get_pretrained_cfg(model, tag)
        found.setdefault(model, {})[tag] = (bool(entry.get("quick_gelu")), entry.get("hf_hub", ""))
    return found


def _tags(value: ast.expr) -> Tags:
    """The tags of `dict(tag=config(...), ...)`, a call with one keyword for each tag."""
    keywords = value.keywords if isinstance(value, ast.Call) else []
    return {k.arg: _entry(k.value) for k in keywords if k.arg and isinstance(k.value, ast.Call)}


def _entry(call: ast.Call) -> tuple[bool, str]:
    said = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    return bool(said.get("quick_gelu")), str(said.get("hf_hub", ""))
