"""The pictures of the clips that an audit names: thumbnails, by clip id, apart from the figures."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from curate.audit.figure import Audit
from curate.query.contact_sheet import thumbnails


def pictures(
    sql: duckdb.DuckDBPyConnection, audit: Audit, figures: Iterable[str] = ("examples.clips",)
) -> dict[str, bytes]:
    """The JPEG of each clip that these figures name in their column clip_id, where the catalog has one."""
    named = [audit.figure(id) for id in figures]
    ids = dict.fromkeys(clip for figure in named if "clip_id" in figure.columns for clip in figure.column("clip_id"))
    return thumbnails(sql, list(ids))
