"""A contact sheet: thumbnails of clips in rows, each with its rank, score, source and time span."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import duckdb
import numpy as np

from curate.catalog.gates import literal
from curate.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
COLUMNS = 5
MOST = 100  # clips on one sheet: more make a picture that no viewer likes
TILE = (240, 160)  # width and height of a thumbnail's place, pixels
LINE, MARGIN, TITLE = 16, 10, 34  # height of a line of text, space around tiles, height of the heading
PAPER, INK, PALE, EMPTY = (250, 250, 248), (24, 24, 26), (110, 110, 112), (224, 224, 222)  # RGB


def check_name(path: str) -> None:
    """UserError for a name that says no kind of picture, or a folder that is not there."""
    if Path(path).suffix.lower() not in ENDINGS:
        raise UserError(f"-o {path}: a contact sheet's name ends with {', '.join(ENDINGS)}")
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {Path(path).parent}")


def write_sheet(path: str, connection: duckdb.DuckDBPyConnection, hits: Sequence[Any], heading: str) -> None:
    """Draws the first hundred of `hits` (curate.query.search.Hit) with their thumbnails from a catalog's connection.

    The file is whole or absent. Raises UserError where it can't be written.
    """
    shown = list(hits)[:MOST]
    ids = ", ".join(literal(hit.clip_id) for hit in shown) or "NULL"
    rows = connection.execute(f"SELECT clip_id, jpeg FROM thumbnails WHERE clip_id IN ({ids})").fetchall()
    pictures = {clip: cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for clip, jpeg in rows if jpeg}
    tiles = [(_labels(hit), pictures.get(hit.clip_id)) for hit in shown]
    more = f" (the first {MOST} of {len(hits):,})" if len(hits) > MOST else ""
    sheet = draw_sheet(f"{heading}{more}", tiles)
    _write(Path(path), sheet)


def draw_sheet(heading: str, tiles: Sequence[tuple[tuple[str, str], np.ndarray | None]]) -> np.ndarray:
    """(h, w, 3) uint8 RGB: tiles of two lines of text and a picture (h, w, 3) uint8 BGR, or none."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = TILE
    columns = min(COLUMNS, max(len(tiles), 2))
    rows = -(-len(tiles) // columns)
    step = (width + MARGIN, height + 2 * LINE + MARGIN)
    sheet = Image.new("RGB", (columns * step[0] + MARGIN, TITLE + rows * step[1] + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(17), ImageFont.load_default(12)
    pen.text((MARGIN, 10), _fitting(heading, large, sheet.width - 2 * MARGIN), INK, large)
    for number, ((first, second), picture) in enumerate(tiles):
        left, top = MARGIN + number % columns * step[0], TITLE + number // columns * step[1]
        pen.rectangle((left, top, left + width - 1, top + height - 1), EMPTY)
        if picture is not None:
            share = min(width / picture.shape[1], height / picture.shape[0])
            size = (max(1, round(picture.shape[1] * share)), max(1, round(picture.shape[0] * share)))
            kind = cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR
            shown = Image.fromarray(np.ascontiguousarray(cv2.resize(picture, size, interpolation=kind)[:, :, ::-1]))
            sheet.paste(shown, (left + (width - size[0]) // 2, top + (height - size[1]) // 2))
        pen.text((left, top + height + 2), _fitting(first, small, width), INK, small)
        pen.text((left, top + height + LINE + 1), _fitting(second, small, width), PALE, small)
    return np.asarray(sheet)


def _labels(hit: Any) -> tuple[str, str]:
    return f"{hit.rank}.  {hit.score:.3f}   {hit.start_s:.2f} to {hit.end_s:.2f} s", PurePosixPath(hit.uri).name


def _fitting(text: str, font: Any, width: int) -> str:
    """The text in one line, its middle left out where it is too long."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(shorter := f"{text[: keep // 2]}…{text[-(keep // 2) :]}") > width:
        keep -= 1
    return shorter


def _write(path: Path, sheet: np.ndarray) -> None:
    coded, data = cv2.imencode(path.suffix.lower(), sheet[:, :, ::-1])
    if not coded:
        raise UserError(f"can't draw {path}: OpenCV does not write {path.suffix}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data.tobytes())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"can't write {path}: {error.strerror}") from error
