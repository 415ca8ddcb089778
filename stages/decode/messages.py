"""The wire format between the decoder's child process and its parent: a JSON header and raw arrays, no pickles.

A message is a prefix (kind, length of the header), the header in JSON and the bytes of its arrays. The header
states the arrays' shapes; all arrays are uint8. Nothing in a message can name code to run, and the receiver
decides beforehand how many bytes it takes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import TypeAdapter
from pydantic_core import from_json

from stages.decode.reading import SafeFile
from stages.frames import FrameRequest, Picture

STARTED, ITEM, PROGRESS, DONE, REFUSED, FAILED = range(6)  # kinds of message from the child
PREFIX = struct.Struct("<BI")  # kind, bytes of the JSON header
HEADER_BYTES = 2**20  # a longer header from the child is refused
ARRAY_BYTES = 2**28  # bytes of arrays that a message may have where the caller does not say


class JsonRequest:
    """Base of the dataclasses that the parent sends to its child: to JSON, and back with every value checked."""

    def to_json(self) -> object:
        return _adapter(self.__class__).dump_python(self, mode="json")

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Raises pydantic's ValidationError, a ValueError, for anything else than `to_json` gave."""
        return _adapter(cls).validate_python(value)


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}  # to make one takes milliseconds


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


class Message(NamedTuple):
    """What a task in the child yields: `fields` is anything that JSON can hold, `arrays` are uint8."""

    fields: object
    arrays: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class Call:
    """What a task in the child is given.

    `request` is what the parent sent, as JSON holds it. `shared` is the descriptor of memory shared with the
    parent, None where there is none. Calling `progress(n)` tells the parent that the task is alive.
    """

    request: object
    source: SafeFile | None
    shared: int | None
    progress: Callable[[int], None]

    @property
    def file(self) -> SafeFile:
        """The source of the call, which the task closes unless it wants to be given it again."""
        if self.source is None:
            raise ValueError("the call names no source")
        return self.source


class Prefix(NamedTuple):
    kind: int
    header_bytes: int


class Header(NamedTuple):
    fields: object
    shapes: list[tuple[int, ...]]


def pack(kind: int, message: Message) -> list[bytes | memoryview]:
    """The parts of a message in the order in which they are sent; the arrays are not copied."""
    arrays = [np.ascontiguousarray(array, np.uint8) for array in message.arrays]
    header = json.dumps([message.fields, [array.shape for array in arrays]], separators=(",", ":")).encode()
    return [PREFIX.pack(kind, len(header)) + header, *(array.reshape(-1).data for array in arrays)]


def parse_prefix(data: bytes | bytearray) -> Prefix:
    """Raises ValueError for an unknown kind or a header that is too long."""
    prefix = Prefix(*PREFIX.unpack(data))
    if not STARTED <= prefix.kind <= FAILED:
        raise ValueError(f"kind {prefix.kind} of message is unknown")
    if prefix.header_bytes > HEADER_BYTES:
        raise ValueError(f"a header of {prefix.header_bytes} bytes is over the limit of {HEADER_BYTES}")
    return prefix


def parse_header(data: bytes | bytearray, most_bytes: int) -> Header:
    """Raises ValueError for a header that is not JSON of the right form, or whose arrays take over `most_bytes`."""
    match from_json(bytes(data)):
        case [fields, list(shapes)] if all(map(_is_shape, shapes)):
            size = sum(map(math.prod, shapes))
            if size > most_bytes:
                raise ValueError(f"arrays of {size} bytes are over the limit of {most_bytes}")
            return Header(fields, [tuple(shape) for shape in shapes])
    raise ValueError("the header is not [fields, shapes of arrays]")


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and len(shape) <= 4 and all(type(n) is int and 0 <= n <= 2**40 for n in shape)


def picture_bytes(requests: Iterable[FrameRequest]) -> int:
    """Bytes that the pictures of one clip can have at most."""
    return sum(3 * request.long_side**2 * len(request.positions) for request in requests)


def pictures_of(seconds: object, arrays: Sequence[np.ndarray], wants: Sequence[FrameRequest]) -> list[list[Picture]]:
    """The pictures of each request, whose arrays come in that order; `seconds` are their times, request by request.

    A request has a picture for each of its positions or none at all. Raises ValueError for anything else.
    """
    if not isinstance(seconds, list) or len(seconds) != len(wants):
        raise ValueError(f"not the times of {len(wants)} requests")
    rest, found = iter(arrays), []
    for times, request in zip(seconds, wants, strict=True):
        if not isinstance(times, list) or len(times) not in (0, len(request.positions)):
            raise ValueError(f"not the times of {len(request.positions)} pictures")
        found.append([(_time(at), _picture(next(rest, None), request.long_side)) for at in times])
    if next(rest, None) is not None:
        raise ValueError("more pictures than times")
    return found


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("a time is no number")
    return float(value)


def _picture(array: np.ndarray | None, long_side: int) -> np.ndarray:
    if array is None or array.ndim != 3 or array.shape[2] != 3 or not 1 <= max(array.shape[:2]) <= long_side:
        raise ValueError(f"not a picture of at most {long_side} pixels a side")
    return array
