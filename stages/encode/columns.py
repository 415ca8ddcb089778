"""The columns of clips that an encoding takes: captions, which are texts, and conditions, which are numbers; and
how a clip was rendered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from stages.base import ClipError, MissingColumn, SettingsError
from stages.encode.settings import EncodeSettings

# What is known to help a video network: rate, size and crop as micro-conditions (SDXL, arXiv:2307.01952), how much a
# clip moves, and how it looks (Stable Video Diffusion, arXiv:2311.15127).
DEFAULT_CONDITIONS = ("fps", "width", "height", "crop_x", "crop_y", "crop_w", "crop_h", "motion", "aesthetic")


def check_captions(wanted: Iterable[str], columns: Mapping[str, Any]) -> None:
    """SettingsError for a caption that is no text column of clips; `columns` maps those to Arrow types."""
    for name in wanted:
        _check_there(name, columns)
        if not _is_text(columns[name]):
            raise SettingsError(f"column {name!r} is {columns[name]}, no text to embed")


def choose_conditions(wanted: Collection[str] | None, columns: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that are kept as conditions: those wanted, or those of DEFAULT_CONDITIONS that are there. A default
    that says the same of every clip is kept, since the next clips may differ; `dataset create` leaves it out.
    SettingsError for what is no number.
    """
    if wanted is None:
        return tuple(name for name in DEFAULT_CONDITIONS if name in columns and _is_number(columns[name]))
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


def check_rendering(row: Mapping[str, Any], settings: EncodeSettings) -> None:
    """Raises ClipError for a clip whose signals were measured on frames that were rendered in another way."""
    for name, wanted in (("hdr", settings.hdr), ("deinterlace", settings.deinterlace)):
        found = row.get(name)
        if found is not None and found != wanted:
            raise ClipError(f"scanned with probe.{name}: {found}: set encode.{name} alike, or scan it again")
