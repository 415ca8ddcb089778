"""Arrow arrays from the values of rows: NaN is NULL, and text that is not UTF-8 is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def array(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Values as Arrow; without `kind` the type is inferred, integers among floats becoming floats.

    Raises pa.ArrowInvalid or pa.ArrowTypeError for values that do not fit (1.5 among integers).
    """
    kinds = set(map(type, values))  # most columns hold one type, and need none of the passes below
    if any(issubclass(found, np.generic) for found in kinds):
        values = [v.item() if isinstance(v, np.generic) else v for v in values]
        kinds = set(map(type, values))
    if str in kinds:  # file names may hold bytes that are no UTF-8; SQL must still show them
        values = [v.encode("utf-8", "backslashreplace").decode() if type(v) is str else v for v in values]
    if float in kinds and kind is not None and pa.types.is_integer(kind):
        values = [_whole(v) if type(v) is float else v for v in values]
    return pa.array(values, kind, from_pandas=True)


def _whole(value: float) -> int | None:
    """Arrow would cut 1.5 down to 1."""
    if value != value:
        return None
    if not value.is_integer():
        raise pa.ArrowInvalid(f"{value!r} is no whole number")
    return int(value)
