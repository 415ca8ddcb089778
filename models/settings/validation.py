"""Settings by name to frozen dataclasses, with what can't be told in one line. No torch here."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class ConfigError(ValueError):
    """A setting that can't be: one line with the value and what there is."""


def built(kind: type, values: Any, where: str = "") -> Any:
    """A dataclass, those within it too, from settings by name. Raises ConfigError, naming what there is."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'config'} {values!r}: settings by name are expected")
    fields = get_type_hints(kind)
    if unknown := sorted(str(name) for name in set(values) - set(fields)):
        named = f" of {where}" if where else ""
        raise ConfigError(f"unknown setting{named} {', '.join(unknown)}: there are {', '.join(fields)}")
    known, defaults = {}, {each.name: each.default for each in dataclasses.fields(kind)}
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        nested = dataclasses.is_dataclass(fields[name])
        known[name] = built(fields[name], value, path) if nested else _typed(path, fields[name], value, defaults[name])
    return kind(**known)


def _typed(path: str, wanted: Any, value: Any, default: Any) -> Any:
    """The value, if it is of the annotated type; a whole number passes for a float, 3.0 for an int."""
    if not _fits(value, wanted):
        named = getattr(wanted, "__name__", None) if not get_args(wanted) else str(wanted).replace("typing.", "")
        if get_origin(wanted) is tuple:
            raise ConfigError(f"{path} {value!r}: a list is expected, such as {json.dumps(default)}")
        if get_origin(wanted) is dict:
            raise ConfigError(f"{path} {value!r}: settings by name are expected")
        raise ConfigError(f"{path} {value!r}: {named} is expected")
    return int(value) if wanted is int else value


def _fits(value: Any, wanted: Any) -> bool:
    if wanted is Any:
        return True
    if get_origin(wanted) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(wanted))
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    wanted = get_origin(wanted) or wanted
    if wanted in (int, float):
        return is_number(value) and (wanted is float or isinstance(value, int) or value.is_integer())
    return isinstance(value, {tuple: (list, tuple), dict: Mapping}.get(wanted, wanted))


def listed(config: Any, *names: str) -> None:
    """Lists, as JSON has them, to tuples."""
    for name in names:
        object.__setattr__(config, name, tuple(getattr(config, name)))


def one_of(name: str, value: Any, known: Iterable[str]) -> None:
    """Raises ConfigError for what is not among them."""
    if value not in known:
        raise ConfigError(f"{name} {value!r}: there are {', '.join(known)}")


def at_least(config: Any, where: str, **least: float) -> None:
    """Raises ConfigError for a number of the config that is below its bound, or NaN."""
    for name, bound in least.items():
        if not getattr(config, name) >= bound:
            path = f"{where}.{name}" if where else name
            raise ConfigError(f"{path} {getattr(config, name)!r}: at least {bound}")


def from_0_to_below(path: str, value: Any, bound: float, called: str | None = None) -> None:
    """Raises ConfigError for what is no number from 0 to below the bound."""
    if not (is_number(value) and 0 <= value < bound):
        raise ConfigError(f"{path} {value!r}: from 0 to below {called or bound}")


def above_0(path: str, value: Any) -> None:
    """Raises ConfigError for what is no finite number above 0."""
    if not (is_number(value) and 0 < value < math.inf):
        raise ConfigError(f"{path} {value!r}: a finite number above 0 is expected")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
