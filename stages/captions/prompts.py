"""Fills prompt templates with what is known of a clip: `{duration}`, `{width:.0f}`, `{caption}`, any column.

Templates have plain fields and format specifications only, no attributes and no indices, so that they reach nothing
but the clip's own columns. A value that is filled in is not searched for fields again.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from stages.unit import Clip

# Fields whose value is the clip's, even where the manifest has a column of the same name.
CLIP_FIELDS = ("clip_id", "source_id", "uri", "media", "start_s", "end_s", "width", "height", "fps", "frames")
MAX_FILLED = 2000  # characters of one field; a manifest may hold anything


class FieldError(Exception):
    """A field that has no value for a clip; `known` says whether the clip has a column of that name."""

    def __init__(self, name: str, known: bool):
        super().__init__(f"the prompt's field {{{name}}} has no value for this clip")
        self.name, self.known = name, known


def check_template(template: str) -> frozenset[str]:
    """The names of a template's fields. Raises ValueError for anything but plain fields."""
    names = set()
    for _, name, specification, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier():
            raise ValueError(f"{{{name}}} is no field: write {{duration}}, and {{{{ }}}} for braces themselves")
        if conversion or "{" in (specification or ""):
            raise ValueError(f"field {{{name}}}: no conversion and no field inside a field")
        names.add(name)
    return frozenset(names)


def fields(clip: Clip) -> dict[str, Any]:
    """The fields that a prompt may use: the clip's columns, those of its source's manifest, its length in seconds."""
    row, source = clip.row, clip.source
    values = row | source.columns | {"uri": source.uri, "source_id": source.source_id}
    values |= {name: row[name] for name in CLIP_FIELDS if name in row}
    start, end = row.get("start_s"), row.get("end_s")
    if start is not None and end is not None:
        values["duration"] = end - start
    return values


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The prompt. Raises FieldError for a missing value, ValueError for a specification that does not fit its value."""
    parts = []
    for text, name, specification, _ in string.Formatter().parse(template):
        parts.append(text)
        if name is None:
            continue
        value = values.get(name)
        if value is None or value == "":
            raise FieldError(name, name in values)
        if not specification and isinstance(value, float):
            specification = ".4g"  # 3.033 s, not 3.0333333333333 s
        try:
            parts.append(format(value, specification or "")[:MAX_FILLED])
        except (ValueError, TypeError) as error:
            raise ValueError(f"field {{{name}:{specification}}} does not fit {value!r}: {error}") from error
    return "".join(parts)
