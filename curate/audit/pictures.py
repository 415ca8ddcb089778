"""The pictures of the clips that an audit names: thumbnails, by clip id, apart from the figures."""

from __future__ import annotations

import duckdb

from curate.audit.figure import Audit
from curate.query.contact_sheet import thumbnails


def pictures(sql: duckdb.DuckDBPyConnection, audit: Audit) -> dict[str, bytes]:
    """The JPEG of each clip that a figure names in its column clip_id, where the catalog has one."""
    named = [figure for figure in audit.figures() if "clip_id" in figure.columns]
    ids = dict.fromkeys(clip for figure in named for clip in figure.column("clip_id"))
    return thumbnails(sql, [clip for clip in ids if clip is not None])
