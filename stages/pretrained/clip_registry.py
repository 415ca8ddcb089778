"""What open_clip knows, architectures and pretrained tags, read beside it, because importing it takes seconds."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from stages.base import SettingsError


def require_open_clip() -> None:
    """SettingsError when it is not installed."""
    for package in ("torch", "open_clip"):
        if importlib.util.find_spec(package) is None:
            raise SettingsError(f"this needs the package {package}: pip install 'clipmill[clip]'")


def _package() -> Path:
    spec = importlib.util.find_spec("open_clip")
    return Path(spec.origin).parent


@functools.cache
def architectures() -> dict[str, Path]:
    """name -> the JSON file of its configuration."""
    return {path.stem: path for path in (_package() / "model_configs").glob("*.json")}


@functools.cache
def _all_tags() -> dict[str, dict[str, tuple[bool, str]]]:
    """The tags of every architecture, from the text of open_clip's own table.

    Should that have another form one day, open_clip is imported and asked.
    """
    tree = ast.parse((_package() / "pretrained.py").read_text())
    groups: dict[str, dict[str, tuple[bool, str]]] = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name, value = node.targets[0].id, node.value
        if name == "_PRETRAINED" and isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            return {key.value: groups[g.id] if isinstance(g, ast.Name) else _group(g) for key, g in pairs}
        groups[name] = _group(value)
    import open_clip.pretrained as pretrained

    return {
        model: {tag: (bool(entry.get("quick_gelu")), entry.get("hf_hub", "")) for tag, entry in tags.items()}
        for model, tags in pretrained._PRETRAINED.items()
    }


def _group(value: ast.expr) -> dict[str, tuple[bool, str]]:
    """The tags of `dict(tag=_pcfg(...), ...)`."""
    keywords = value.keywords if isinstance(value, ast.Call) else []
    return {k.arg: _entry(k.value) for k in keywords if k.arg and isinstance(k.value, ast.Call)}


def _entry(call: ast.Call) -> tuple[bool, str]:
    said = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    return bool(said.get("quick_gelu")), str(said.get("hf_hub", ""))


def tags_of(model: str) -> dict[str, tuple[bool, str]]:
    """Of an architecture tag -> (trained with QuickGELU, repository on the hub or '')."""
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
