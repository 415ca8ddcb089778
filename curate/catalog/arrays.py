"""Arrow arrays from Python values without pandas.

`pyarrow.array` imports pandas wherever it is installed (ray brings it), which costs a run up to a second of
start-up. The kinds of values that nearly every row is made of are laid out here; the rest goes that way.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_TIME = pa.timestamp("us", tz="UTC")
_INTEGERS = {pa.int8(): np.int8, pa.int16(): np.int16, pa.int32(): np.int32, pa.int64(): np.int64}
_FLOATS = {pa.float32(): np.float32, pa.float64(): np.float64}
_SIMPLE = {str: pa.string(), bytes: pa.binary(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


def array(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Values as Arrow, None and NaN as NULL; without `kind` it is inferred.

    Raises pa.ArrowInvalid or pa.ArrowTypeError for values that do not fit (1.5 among integers).
    """
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    values = [None if isinstance(v, float) and v != v else v for v in values]
    known = {type(v) for v in values if v is not None}
    kind = kind or _kind_of(known)
    if kind is not None and not known:
        return pa.nulls(len(values), kind)
    if kind in _INTEGERS and known <= {int, float}:
        return _whole(values, kind)
    if kind in _FLOATS and known <= {int, float}:
        return _fixed(values, kind, _FLOATS[kind])
    if kind == pa.bool_() and known == {bool}:
        flags = _bits([v is True for v in values])
        return pa.Array.from_buffers(kind, len(values), [_validity(values), flags])
    if kind == pa.string() and known == {str}:
        # File names may hold bytes that are no UTF-8; SQL must still be able to show them.
        return _bytes([None if v is None else v.encode("utf-8", "backslashreplace") for v in values], kind)
    if kind == pa.binary() and known == {bytes}:
        return _bytes(values, kind)
    if kind == _TIME and known == {datetime.datetime} and all(v is None or v.tzinfo for v in values):
        ticks = [None if v is None else (v - _EPOCH) // _MICROSECOND for v in values]
        return _fixed(ticks, pa.int64(), np.int64).cast(kind)
    return pa.array(values, type=kind)


def _kind_of(known: set[type]) -> pa.DataType | None:
    if not known:
        return pa.null()
    if known == {int, float}:
        return pa.float64()
    return _SIMPLE.get(next(iter(known))) if len(known) == 1 else None


def _bits(flags: Sequence[bool]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(np.array(flags, dtype=bool), bitorder="little").tobytes())


def _validity(values: Sequence[Any]) -> pa.Buffer | None:
    there = [v is not None for v in values]
    return None if all(there) else _bits(there)


def _whole(values: Sequence[int | float | None], kind: pa.DataType) -> pa.Array:
    limits = np.iinfo(_INTEGERS[kind])
    for value in values:
        if value is not None and not (limits.min <= value <= limits.max and int(value) == value):
            raise pa.ArrowInvalid(f"{value} does not fit")
    return _fixed([None if v is None else int(v) for v in values], kind, _INTEGERS[kind])


def _fixed(values: Sequence[int | float | None], kind: pa.DataType, numbers: Any) -> pa.Array:
    data = np.array([0 if v is None else v for v in values], dtype=numbers)
    return pa.Array.from_buffers(kind, len(values), [_validity(values), pa.py_buffer(data.tobytes())])


def _bytes(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    parts = [v or b"" for v in values]
    ends = np.cumsum([0, *map(len, parts)])
    if ends[-1] > np.iinfo(np.int32).max:
        raise pa.ArrowInvalid("more than 2 GiB in one batch")
    offsets = pa.py_buffer(ends.astype(np.int32).tobytes())
    buffers = [_validity(values), offsets, pa.py_buffer(b"".join(parts))]
    return pa.Array.from_buffers(kind, len(values), buffers)
