"""`clipmill sheet`: thumbnails of clips with the values that judged them, as a picture or as one HTML file.

Of more clips than fit, those shown are spread evenly over the order: by the column of `--by`, else by clip id, which is
a hash. So a sheet by a signal shows its whole range, from the least value to the greatest.
"""

from __future__ import annotations

import base64
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb

from curate.catalog.catalog import Catalog
from curate.catalog.gates import quote, referenced_columns
from curate.catalog.views import connect, query
from curate.errors import UnknownColumn, UserError
from curate.query.contact_sheet import MOST, check_sheet_name, save_sheet, thumbnails, write_contact_sheet
from curate.query.gates import gates_in_force

HTML = (".html", ".htm")
SHOWN = 4  # values below a picture
LETTERS = 38  # in a line below a picture
STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { width: 100%; aspect-ratio: 3 / 2; object-fit: contain; background: #8883; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; } .dropped { opacity: .75; } .why { font-weight: 600; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin: .2rem 0; } dd { margin: 0; }
"""


@dataclass(frozen=True)
class SheetClip:
    """A clip of a sheet: its columns that say what it is, and the values of the columns that gates name."""

    clip_id: str
    uri: str
    start_s: float | None
    end_s: float | None
    verdict: str
    failed_gates: Sequence[str]
    values: dict[str, Any]

    @property
    def place(self) -> str:
        name = PurePosixPath(self.uri).name
        return name if self.start_s is None or self.end_s is None else f"{name} {self.start_s:.2f}-{self.end_s:.2f} s"

    @property
    def why(self) -> str:
        return "kept" if self.verdict == "kept" else f"dropped by {', '.join(self.failed_gates)}"

    @property
    def labels(self) -> tuple[str, ...]:
        """What a picture says of it, in lines: the verdict, the values, the span."""
        values = [f"{name}\u00a0{_text(value)}" for name, value in list(self.values.items())[:SHOWN]]
        return (self.why, *textwrap.wrap(" ".join(values), LETTERS), self.place)


def write_sheet(uri: str, output: str, where: str | None, by: str | None, descending: bool, most: int | None) -> int:
    """Writes a sheet of at most `most` clips; returns 0. Raises UserError, before anything is written."""
    is_page = Path(output).suffix.lower() in HTML
    check_sheet_name(output, more=HTML)
    if most is not None and not is_page and most > MOST:
        raise UserError(f"-n {most}: a picture holds {MOST} clips at most; an HTML file (-o sheet.html) takes more")
    with connect(Catalog.open(uri)) as sql:
        total, clips = chosen_clips(sql, where, by, descending, most or MOST)
        if not clips:
            raise UserError(f"no clip of this catalog{f' is WHERE {where}' if where else ''}: nothing to show")
        order = f" by {by}{', greatest first' if descending else ''}" if by else ""
        spread = f", {len(clips):,} of them spread evenly" if len(clips) < total else ""
        heading = f"{total:,} clips{f' WHERE {where}' if where else ''}{order}{spread}"
        if is_page:
            save_sheet(output, _page(heading, clips, thumbnails(sql, [clip.clip_id for clip in clips])))
        else:
            write_contact_sheet(output, sql, [(clip.clip_id, clip.labels) for clip in clips], heading)
    print(f"{output}: {heading}", file=sys.stderr)
    return 0


def chosen_clips(
    sql: duckdb.DuckDBPyConnection, where: str | None, by: str | None, descending: bool, most: int
) -> tuple[int, list[SheetClip]]:
    """(how many clips there are, at most `most` of them spread evenly over their order). UserError for wrong SQL."""
    columns = [row[0] for row in sql.execute("DESCRIBE clips").fetchall()]
    if by is not None and by.lower() not in map(str.lower, columns):
        raise UnknownColumn(f"--by {by}: clips have no such column", by)
    chosen = f"SELECT * FROM clips WHERE ({where or 'true'}\n)"
    query(sql, f"{chosen} LIMIT 0")  # says what is wrong with the condition, and that it is one condition
    named = {} if by is None else {by.lower(): by}
    for standing in gates_in_force(sql):
        if "." in standing.gate.name:  # brought by a stage: it judges lengths, and the span is shown anyway
            continue
        for name in sorted(referenced_columns(sql, standing.gate)):
            if name.lower() in map(str.lower, columns):
                named.setdefault(name.lower(), name)
    values = list(named.values())
    direction = "DESC NULLS LAST" if descending else "ASC NULLS LAST"
    order = f"{quote(by)} {direction}, clip_id" if by is not None else "clip_id"
    fixed = ["clip_id", "uri", "start_s", "end_s", "verdict", "failed_gates"]
    rows = sql.execute(
        f"WITH chosen AS ({chosen}), placed AS (SELECT *, row_number() OVER (ORDER BY {order}) - 1 AS _place, "
        f"count(*) OVER () AS _total FROM chosen) "
        f"SELECT _total, {', '.join(map(quote, [*fixed, *values]))} FROM placed "
        "WHERE _total <= $1 OR _place = 0 "
        "OR (_place * ($1 - 1)) // (_total - 1) > ((_place - 1) * ($1 - 1)) // (_total - 1) ORDER BY _place",
        [most],
    ).fetchall()
    found = []
    for _, clip_id, source, start_s, end_s, verdict, failed_gates, *shown in rows:
        judged = dict(zip(values, shown, strict=True))
        found.append(SheetClip(clip_id, source, start_s, end_s, verdict, failed_gates, judged))
    return (rows[0][0] if rows else 0), found[:most]


def _page(heading: str, clips: Sequence[SheetClip], pictures: dict[str, bytes]) -> str:
    """One HTML file with the pictures inside it, which needs no network."""
    figures = "\n".join(_figure(clip, pictures.get(clip.clip_id)) for clip in clips)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(heading)}</title><style>{STYLE}</style><h1>{escape(heading)}</h1>"
        f'<div class="clips">\n{figures}\n</div></html>\n'
    )


def _figure(clip: SheetClip, jpeg: bytes | None) -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""
    picture = f'<img src="{source}" alt="{escape(clip.place)}" loading="lazy">' if source else "<img alt=''>"
    values = "".join(f"<dt>{escape(name)}</dt><dd>{escape(_text(value))}</dd>" for name, value in clip.values.items())
    return (
        f'<figure class="{clip.verdict}">{picture}<figcaption><span class="why">{escape(clip.why)}</span>'
        f"<dl>{values}</dl>{escape(clip.place)}<br><code>{escape(clip.clip_id)}</code></figcaption></figure>"
    )


def _text(value: Any) -> str:
    return "NULL" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
