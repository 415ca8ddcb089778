"""The columns of clips that an encoding takes: captions, which are texts, and conditions, which are numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from stages.base import MissingColumn, SettingsError

# Numbers of a clip that say where it is in its source, not what it shows.
NO_CONDITIONS = {"scene", "start_s", "end_s", "start_pts", "end_pts", "time_base_num", "time_base_den", "frames"}


def check_captions(wanted: Iterable[str], columns: Mapping[str, Any]) -> None:
    """SettingsError for a caption that is no text column of clips; `columns` maps those to Arrow types."""
    for name in wanted:
        _check_there(name, columns)
        if not _is_text(columns[name]):
            raise SettingsError(f"column {name!r} is {columns[name]}, no text to embed")


def choose_conditions(
    wanted: Collection[str] | None, columns: Mapping[str, Any], signals: Collection[str]
) -> tuple[str, ...]:
    """The columns that are kept as conditions: those wanted, or every number that is none of the encoding's `signals`,
    under its table's name or another. SettingsError for what is no number.
    """
    if wanted is None:
        numbers = (name for name, kind in columns.items() if _is_number(kind) and name not in NO_CONDITIONS)
        return tuple(sorted(n for n in numbers if not any(n == own or n.endswith(f"_{own}") for own in signals)))
    for name in wanted:
        _check_there(name, columns)
        if not _is_number(columns[name]):
            raise SettingsError(f"condition {name!r} is {columns[name]}, no number")
    return tuple(wanted)


def condition_values(names: Iterable[str], row: Mapping[str, Any]) -> dict[str, float | None]:
    """The conditions of a clip; None for what is not known."""
    values = {name: row.get(name) for name in names}
    return {name: None if value is None or value != value else float(value) for name, value in values.items()}


def _check_there(name: str, columns: Mapping[str, Any]) -> None:
    if name not in columns:
        raise MissingColumn(f"clips have no column {name!r}", name)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
