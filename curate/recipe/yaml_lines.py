"""A YAML file with the line of every key, so that what is wrong in it can be pointed at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from curate.errors import UserError

Path_ = tuple[str | int, ...]  # where in the file: ('recipes', 'ingest', 'stages', 0, 'probe')


def read_yaml(file: Path) -> tuple[str, Any, dict[Path_, int]]:
    """The text of a file, its data, and the line of each key and item.

    UserError with file and line for one that can't be read, is no YAML, or gives a key twice.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {file}: {getattr(error, 'strerror', None) or error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}: not valid YAML: {said}") from error
    lines: dict[Path_, int] = {}
    try:
        _number(str(file), node, (), lines)
    except RecursionError as error:
        raise UserError(f"{file}: an alias refers to what it stands in") from error
    return text, data, lines


def _number(file: str, node: yaml.Node | None, at: Path_, lines: dict[Path_, int]) -> None:
    """Notes the line of every key and item; a key given twice is an error, not the last one's win."""
    if node is None:
        return
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = (*at, key.value)
            if path in lines:
                raise UserError(f"{file}:{key.start_mark.line + 1}: {key.value!r} is given twice; keep one")
            lines[path] = key.start_mark.line + 1
            _number(file, value, path, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _number(file, value, (*at, index), lines)
