"""The columns of manifests under the names that `clips` shows them by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from curate.catalog.rights import RIGHTS
from curate.catalog.schema import BASE, PASS

OWN = frozenset([*BASE["sources"].names, PASS])


def of_manifests(columns: Iterable[str]) -> list[str]:
    """Those of the columns of `sources` that clipmill does not fill by itself, the rights columns among them."""
    return [name for name in columns if name not in OWN]


def shown_in_clips(columns: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Column of `sources` -> its name in `clips`: its own, or with `sources_` before it where that is taken."""
    lowered = {name.lower() for name in taken}
    return {name: f"sources_{name}" if name.lower() in lowered else name for name in columns}


def types_for_gates(stored: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The types of manifest columns that gates may name: rights columns are there always; lists and bytes are not."""
    types = dict(zip(RIGHTS.names, RIGHTS.types, strict=True)) | {name: stored[name] for name in of_manifests(stored)}
    return {name: kind for name, kind in types.items() if not (pa.types.is_nested(kind) or pa.types.is_binary(kind))}
