"""The columns of a manifest by name: which one names the source, and what the others are called in `sources`."""

from __future__ import annotations

from collections.abc import Sequence

from curate.catalog.rights import RIGHTS
from curate.catalog.schema import BASE, PASS
from curate.errors import UserError

# Columns that may name the source. The first of them that a manifest has is taken, the others are columns like any.
NAMES = (
    *("uri", "file_name", "filename", "video_path", "video_file", "file_path", "filepath", "path", "file"),
    *("video", "video_uri", "video_url", "url", "contenturl", "image_path", "image_url", "image"),
)
RESERVED = {name.lower() for name in [*BASE["sources"].names, PASS, "clip_id"]}


def naming_column(manifest: str, columns: Sequence[str]) -> str:
    """The column that names the sources, whatever its case. UserError, naming the choices, where there is none."""
    lowered = {name.strip().lower(): name for name in reversed(columns)}
    found = next((lowered[name] for name in NAMES if name in lowered), None)
    if found is None:
        if not columns:
            raise UserError(f"{manifest}: an empty manifest: no row names a source")
        if len(columns) == 1 and (sign := next((sign for sign in ";\t|" if sign in columns[0]), None)):
            raise UserError(f"{manifest}: one column, {columns[0]!r}: cells are parted by commas here, not by {sign!r}")
        raise UserError(
            f"{manifest}: no column `uri` (or {', '.join(NAMES[1:])}) names the sources, there is only "
            f"{', '.join(map(repr, columns))}: rename one"
        )
    return found


def stored_names(manifest: str, columns: Sequence[str]) -> dict[str, str]:
    """Column of a manifest -> what `sources` calls it. UserError for two that would be one.

    A name that clipmill uses itself becomes manifest_NAME: a manifest's own `width` or `status` must not pass for what
    was measured. A rights column is one whatever its case.
    """
    found: dict[str, str] = {}
    lowered: dict[str, str] = {}
    for column in columns:
        plain = "".join(c if c.isprintable() else "_" for c in column).strip()
        name = plain if plain and plain.lower() not in RESERVED else f"manifest_{plain}"
        name = name.lower() if name.lower() in RIGHTS.names else name
        if (other := lowered.setdefault(name.lower(), column)) != column or column in found:
            raise UserError(f"{manifest}: columns {other!r} and {column!r} would be one in the catalog: rename one")
        found[column] = name
    return found
