"""CheckedSettings as frozen dataclasses that check themselves, with every error in one line. No torch here."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints


class ConfigError(ValueError):
    """An invalid setting: one line with its name, its value and what is expected.

    `text` begins with the setting's name; `before` is what the line says before that.
    """

    def __init__(self, text: str, before: str = ""):
        super().__init__(before + text)
        self.text, self.before = text, before

    def within(self, name: str) -> ConfigError:
        """The same error, for a setting of the group `name`: "lr -1: ..." becomes "optimizer.lr -1: ..."."""
        return ConfigError(f"{name}.{self.text}", self.before)


@dataclass(frozen=True)
class CheckedSettings:
    """Base of dataclasses whose fields are settings. Values are checked against the fields' types when one is made.

    Lists become tuples, 3.0 an int and mappings nested settings where the type says so. A subclass that checks more
    (see `at_least` and the functions beside it) calls super().__post_init__() first. Raises ConfigError.
    """

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for each in dataclasses.fields(self):
            value = _checked(each.name, types[each.name], getattr(self, each.name), each.default)
            object.__setattr__(self, each.name, value)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON or YAML. Raises ConfigError for a setting that is unknown, missing or of another type."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"config {values!r}: settings by name are expected")
        known = {each.name: each for each in dataclasses.fields(cls)}
        if unknown := sorted(str(name) for name in set(values) - set(known)):
            near = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1)]
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(f"{', '.join(unknown)}: there are {', '.join(known)}{hint}", "unknown setting ")
        if missing := [name for name, each in known.items() if _required(each) and name not in values]:
            raise ConfigError(f"{', '.join(missing)} is missing", "setting ")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def at_least(settings: CheckedSettings, **least: float) -> None:
    """Raises ConfigError for a setting below its bound, or NaN. None, here and below, passes; of a tuple each value is
    checked.
    """
    for name, bound in least.items():
        for value in _values(settings, name):
            if not value >= bound:
                raise ConfigError(f"{name} {value!r}: at least {bound}")


def above_0(settings: CheckedSettings, *names: str) -> None:
    """Raises ConfigError for a setting that is no finite number above 0."""
    for name in names:
        for value in _values(settings, name):
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} {value!r}: a finite number above 0 is expected")


def finite(settings: CheckedSettings, *names: str) -> None:
    """Raises ConfigError for infinity and NaN."""
    for name in names:
        for value in _values(settings, name):
            if not math.isfinite(value):
                raise ConfigError(f"{name} {value!r}: a finite number is expected")


def from_0_to_below(settings: CheckedSettings, bound: float, *names: str, called: str | None = None) -> None:
    """Raises ConfigError for a setting outside [0, `bound`); errors call the bound `called`."""
    for name in names:
        for value in _values(settings, name):
            if not 0 <= value < bound:
                raise ConfigError(f"{name} {value!r}: from 0 to below {called or bound}")


def shares(settings: CheckedSettings, *names: str) -> None:
    """Raises ConfigError for a setting outside [0, 1]."""
    for name in names:
        for value in _values(settings, name):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} {value!r}: a share from 0 to 1")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _values(settings: CheckedSettings, name: str) -> Iterator[Any]:
    value = getattr(settings, name)
    if isinstance(value, tuple):
        yield from value
    elif value is not None:
        yield value


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _checked(name: str, wanted: Any, value: Any, example: Any) -> Any:
    """The value as its type wants it. Raises ConfigError, with the `example` of a list."""
    if wanted is Any:
        return value
    kind, parts = get_origin(wanted) or wanted, get_args(wanted)
    if kind in (Union, UnionType):
        for part in parts:
            try:
                return _checked(name, part, value, example)
            except ConfigError:
                continue
    elif kind is Literal:
        for part in parts:
            if part == value and isinstance(part, bool) == isinstance(value, bool):
                return part
        raise ConfigError(f"{name} {value!r}: there are {', '.join(map(str, parts))}")
    elif kind is tuple:
        return _tuple(name, parts, value, example)
    elif kind is dict or issubclass(kind, CheckedSettings):
        if kind is not dict and isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} {value!r}: settings by name are expected")
        try:
            return value if kind is dict else kind.from_dict(value)
        except ConfigError as error:
            raise error.within(name) from error
    elif kind in (int, float):
        if is_number(value) and (kind is float or isinstance(value, int) or value.is_integer()):
            return int(value) if kind is int else value
    elif isinstance(value, kind):
        return value
    raise ConfigError(f"{name} {value!r}: {_called(wanted)} is expected")


def _tuple(name: str, parts: tuple[Any, ...], value: Any, example: Any) -> tuple[Any, ...]:
    such = f", such as {json.dumps(example)}" if isinstance(example, tuple) and example else ""
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{name} {value!r}: a list is expected{such}")
    if parts[1:] == (...,):
        parts = parts[:1] * len(value)
    if len(parts) != len(value):
        raise ConfigError(f"{name} {list(value)}: {len(parts)} values are expected{such}")
    return tuple(_checked(name, part, each, None) for part, each in zip(parts, value, strict=True))


def _called(wanted: Any) -> str:
    if get_origin(wanted) in (Union, UnionType):
        return " or ".join(map(_called, get_args(wanted)))
    if get_origin(wanted) in (Literal, dict):
        return " or ".join(map(repr, get_args(wanted))) if get_origin(wanted) is Literal else "settings by name"
    return "null" if wanted is NoneType else getattr(wanted, "__name__", str(wanted))
