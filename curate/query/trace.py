"""`clipmill trace`: prints which datasets, training runs and checkpoints saw clips, and how often up to which step."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.query.sql import write_rows
from curate.removal.trace import COLUMNS, chosen_clips, trace
from curate.removal.trace_places import find

FAILED = 1


def print_trace(
    uri: str, where: str, runs: Sequence[str], datasets: Sequence[str], form: str, by_clip: bool = False
) -> int:
    """Prints what saw the clips that are WHERE `where`, as 'table', 'csv' or 'json', with a row for each clip or for
    all of them together. `runs` and `datasets` are folders to look in besides those that notes lead to. Returns 1 where
    something can't be asked, which stderr says, else 0. UserError.
    """
    catalog = Catalog.open(uri)
    with connect(catalog) as sql:
        clips = chosen_clips(sql, where)
        traced = trace(catalog, sql, clips, find(catalog, runs, datasets))
    at = COLUMNS.index("clips")
    names = ["clip_id", *COLUMNS[:at], *COLUMNS[at + 1 :]] if by_clip else list(COLUMNS)
    write_rows(sys.stdout, names, list(traced.rows_by_clip()) if by_clip else traced.rows(), form)
    for problem in traced.problems:
        print(f"not known: {problem}", file=sys.stderr)
    return FAILED if traced.problems else 0
