"""The clips of an export: their rows, the windows that their files show, and what is said beside each file."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import duckdb
from pydantic import Field, field_validator

from curate.catalog.gates import quote
from curate.catalog.views import query
from curate.errors import UnknownColumn, UserError
from curate.exports.clip_files.messages import ClipFile, ClipFileRequest
from curate.exports.clip_files.mp4_writer import CRF
from stages.settings import Settings
from stages.unit import Place, Source
from stages.windows.buckets import Bucket, frames_of, window_of

KEPT = "SELECT clip_id FROM clips WHERE verdict = 'kept'"
BATCH_CLIPS = 2048  # rows that are fetched from DuckDB at a time
UNSTATED_FPS = 25.0  # by which x264 weighs frames where the source states no rate
_SIZE = re.compile(r"(\d{2,5})(?:x(\d{2,5}))?")


class ClipFileSettings(Settings):
    """How clips are written.

    `size` is "480", the shorter side, never enlarged, or "848x480", to which the middle of the picture is scaled;
    `fps` a constant rate; `letterbox` cuts measured black bars off; `copy` allows stream copies.
    """

    size: str | None = None
    fps: float | None = Field(None, gt=0, le=1000)
    crf: int = Field(CRF, ge=0, le=51)
    letterbox: bool = False
    copy_streams: bool = True

    @field_validator("size")
    @classmethod
    def _size(cls, size: str | None) -> str | None:
        if size is None:
            return None
        found = _SIZE.fullmatch(size)
        sides = [int(side) for side in found.groups() if side] if found else []
        if not sides or any(side % 2 or side < 16 or side > 8192 for side in sides):
            raise ValueError("a size is the shorter side, such as 480, or WIDTHxHEIGHT, such as 848x480: even numbers")
        return size

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the file of a picture of this size."""
        if self.size is None:
            return width, height
        if "x" in self.size:
            wide, tall = map(int, self.size.split("x"))
            return wide, tall
        scale = min(1.0, int(self.size) / min(width, height))
        return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))

    def request(self, row: dict[str, Any]) -> ClipFileRequest:
        """What is asked for of a clip, a row of `ClipRows`."""
        cut = row if self.letterbox else {**row, "crop_x": None}
        measured = cut.get("crop_x") is not None
        width, height = (row["crop_w"], row["crop_h"]) if measured else (row["width"], row["height"])
        width, height = self.shape(width, height)
        fps = self.fps or row["fps"] or UNSTATED_FPS
        frames = frames_of(row, fps) if self.fps else row["frames"]
        place = Place.known(row[SOURCE_OFFSET], row[SOURCE_BYTES])
        source = Source(row["source_id"], row["uri"], bytes=row[SOURCE_BYTES], place=place)
        window = window_of(cut, source, Bucket(frames, height, width), fps, "start")
        return ClipFileRequest(window, self.fps is None, self.copy_streams, self.crf)


# Columns that are added to those of clips.
SOURCE_BYTES, SOURCE_OFFSET, CONTENT = "source_bytes", "source_offset", "content_hash"
NOT_SAID = (SOURCE_BYTES, SOURCE_OFFSET, "caption")


@dataclass(frozen=True)
class ClipRows:
    """The clips that a selection gives; iterating gives their rows, sorted by source and time.

    `images` are stills, which are left out. Raises UserError for wrong SQL, a selection without clips, and a caption
    column that is not there or no text. `caption` is None where clips have none.
    """

    sql: duckdb.DuckDBPyConnection
    count: int
    images: int
    caption: str | None

    @classmethod
    def of(cls, sql: duckdb.DuckDBPyConnection, select: str | None, caption: str | None) -> ClipRows:
        text = (select or KEPT).strip().rstrip(";")
        try:
            names, _ = query(sql, f"SELECT * FROM (\n{text}\n) LIMIT 0")
        except UserError as error:
            raise UserError(f"--select: {error}") from error
        if "clip_id" not in names:
            raise UserError(f"--select must give clip_id; it gives {', '.join(names)[:200]}")
        sql.execute(
            "CREATE OR REPLACE TEMP TABLE chosen AS SELECT clip_id, media FROM clips "
            f"WHERE clip_id IN (SELECT CAST(clip_id AS VARCHAR) FROM (\n{text}\n))"
        )
        films, images = sql.execute(
            "SELECT count(*) FILTER (media IS DISTINCT FROM 'image'), count(*) FILTER (media = 'image') FROM chosen"
        ).fetchall()[0]
        if not films:
            stills = " but still images" if images else ""
            raise UserError(f"{'--select gives' if select else 'the catalog has'} no clips to export{stills}: {text}")
        kinds = {row[0]: row[1] for row in sql.execute("DESCRIBE clips").fetchall()}
        return cls(sql, films, images, _caption(kinds, caption))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        reader = self.sql.sql(
            f"SELECT clips.*, sources.bytes AS {SOURCE_BYTES}, "
            f"sources.archive_offset AS {SOURCE_OFFSET}, sources.content_hash AS {quote(CONTENT)} "
            "FROM clips JOIN chosen USING (clip_id) LEFT JOIN sources ON sources.source_id = clips.source_id "
            "WHERE chosen.media IS DISTINCT FROM 'image' ORDER BY clips.source_id, start_pts, end_pts"
        ).to_arrow_reader(BATCH_CLIPS)
        for batch in reader:
            yield from batch.to_pylist()

    def said(self, row: dict[str, Any], made: ClipFile | dict[str, Any]) -> dict[str, Any]:
        """What stands in the JSON beside a clip's file: its caption, what the file is, and every column of the clip."""
        caption = row[self.caption] if self.caption else None
        columns = {name: plain(value) for name, value in row.items() if name not in NOT_SAID}
        file = asdict(made) if isinstance(made, ClipFile) else made
        return {"clip_id": columns.pop("clip_id"), "caption": caption, "file": file, **columns}


def _caption(kinds: dict[str, str], name: str | None) -> str | None:
    if name is None:
        return "caption" if kinds.get("caption") == "VARCHAR" else None
    texts = [column for column, kind in kinds.items() if kind == "VARCHAR"]
    if name not in kinds:
        raise UnknownColumn(f"--caption {name}: clips have no such column", name)
    if name not in texts:
        near = [column for column in texts if "caption" in column][:3]
        hint = f"; texts are {', '.join(near)}" if near else ""
        raise UserError(f"--caption {name}: that column is {kinds[name]}, no text{hint}")
    return name


def plain(value: Any) -> Any:
    """A value of a table as JSON has it: NaN and infinity become null, times ISO 8601."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def json_line(said: dict[str, Any]) -> str:
    return json.dumps(said, ensure_ascii=False)
