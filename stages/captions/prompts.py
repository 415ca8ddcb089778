"""Prompts as templates: `{duration}`, `{width:.0f}`, `{caption}` and whatever else is known of a clip.

Plain fields and format specifications only: no attributes, no indices, so that nothing but the clip's own
columns can be reached; what is filled in is not looked at for fields again.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from stages.unit import Clip

# A clip's own, whatever a manifest calls by the same name.
CLIP_FIELDS = ("clip_id", "source_id", "uri", "media", "start_s", "end_s", "width", "height", "fps", "frames")
MAX_FILLED = 2000  # characters of one field; a manifest may hold anything


class FieldError(Exception):
    """A field that a clip has no value for; `known` says whether its columns have that name at all."""

    def __init__(self, name: str, known: bool):
        super().__init__(f"the prompt's field {{{name}}} has no value for this clip")
        self.name, self.known = name, known


def check_template(template: str) -> frozenset[str]:
    """The names of a template's fields; raises ValueError for anything but plain fields."""
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
    """What a prompt may say of a clip: its columns, those of its source's manifest, and its length in seconds."""
    row, source = clip.row, clip.source
    found = row | source.columns | {"uri": source.uri, "source_id": source.source_id}
    found |= {name: row[name] for name in CLIP_FIELDS if name in row}
    start, end = row.get("start_s"), row.get("end_s")
    if start is not None and end is not None:
        found["duration"] = end - start
    return found


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The prompt itself. Raises FieldError, and ValueError for a specification that does not fit the value."""
    parts = []
    for text, name, specification, _ in string.Formatter().parse(template):
        parts.append(text)
        if name is None:
            continue
        value = values.get(name)
        if value is None or value == "":
            raise FieldError(name, name in values)
        if not specification and isinstance(value, float):
            specification = ".4g"  # a length of 3.0333333333333 s helps no model
        try:
            parts.append(format(value, specification or "")[:MAX_FILLED])
        except (ValueError, TypeError) as error:
            raise ValueError(f"field {{{name}:{specification}}} does not fit {value!r}: {error}") from error
    return "".join(parts)
