"""Columns of JSON that nobody gave a type: a value of another type than its column's goes into a column beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curate.catalog.arrays import array
from curate.catalog.rights import RIGHTS, rights_value
from curate.catalog.schema import storable
from curate.run.manifests.names import RESERVED
from stages.unit import Row, Source

KINDS = ((bool, "flag"), (int, "integer"), (float, "number"), (str, "text"))


def fit_together(sources: Sequence[Source], schema: pa.Schema) -> pa.Schema:
    """Makes the columns of these sources fit each other and the columns of `schema`; returns those that are new.

    Where `fps` holds numbers, "n/a" goes into `fps_text`. Integers become floats where a column has both. Names that
    differ in capitals only are one column, as SQL has it; the second of one source goes into `fps_2`.
    """
    spelling = {field.name.lower(): field.name for field in [*RIGHTS, *schema]}
    kinds = {field.name: _kind_of_type(field.type) for field in [*RIGHTS, *schema]}
    for source in sources:
        source.columns = _as_rights(_spelled_alike(_stored(source.columns), spelling))
    new: dict[str, Counter[str]] = {}
    for name, value in (item for source in sources for item in source.columns.items()):
        if name not in kinds and (kind := _kind(value)) is not None:
            new.setdefault(name, Counter())[kind] += 1
    kinds |= {name: _common(found) for name, found in new.items()}
    for source in sources:
        source.columns = dict(_fitted(name, value, kinds) for name, value in source.columns.items())
    names = dict.fromkeys(name for source in sources for name in source.columns if name not in schema.names)
    types = {name: storable(array([source.columns.get(name) for source in sources]).type) for name in names}
    return pa.schema([(name, kind) for name, kind in types.items() if kind is not None])


def _stored(row: Row) -> Row:
    """The row under names that `sources` can have; lists and mappings are JSON text, dates and the like text."""
    found: Row = {}
    for name, value in row.items():
        plain = "".join(c if c.isprintable() else "_" for c in name).strip()
        known = plain if plain and plain.lower() not in RESERVED else f"manifest_{plain}"
        if isinstance(value, list | dict | tuple):
            value = json.dumps(value, default=str)
        elif value is not None and _kind(value) is None:
            value = str(value)
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode()  # a lone surrogate is no text
        found[known] = value
    return found


def _spelled_alike(row: Row, spelling: dict[str, str]) -> Row:
    found: Row = {}
    for name, value in row.items():
        known = spelling.setdefault(name.lower(), name)
        while known in found:
            known = spelling.setdefault(f"{known}_2".lower(), f"{known}_2")
        found[known] = value
    return found


def _common(found: Counter[str]) -> str:
    """The kind that most values have; numbers where some are no integers."""
    if found["number"]:
        found["number"] += found.pop("integer", 0)
    return found.most_common(1)[0][0]


def _as_rights(row: Row) -> Row:
    """The row with its rights columns as they are stored; a value that one does not take is a text beside it."""
    found: Row = {}
    for name, value in row.items():
        if name in RIGHTS.names and value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            try:
                found[name] = rights_value(name, text)
            except ValueError:
                found[f"{name}_text"] = text
        else:
            found[name] = value
    return found


def _fitted(name: str, value: Any, kinds: dict[str, str]) -> tuple[str, Any]:
    kind = _kind(value)
    if kind is None:
        return name, value
    if kind == "integer" and not -(2**63) <= value < 2**63:
        kind, value = "text", str(value)
    while (held := kinds.setdefault(name, kind)) != kind:
        if held == "number" and kind == "integer" and int(float(value)) == value:
            return name, float(value)
        name = f"{name}_number" if kind == "integer" and held != "number" else f"{name}_{kind}"
        kinds.setdefault(name, "number" if name.endswith("_number") else kind)
    return name, value


def _kind(value: Any) -> str | None:
    """None of null and of what is no scalar."""
    return next((kind for of, kind in KINDS if isinstance(value, of)), None)


def _kind_of_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "flag"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else str(kind)
