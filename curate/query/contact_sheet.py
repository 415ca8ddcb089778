"""Draws a contact sheet: thumbnails of clips in rows, each with lines of text below it, as an image file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import duckdb
import numpy as np

from curate.catalog.gates import literal
from curate.errors import UserError
from models.files import write_whole

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
COLUMNS = 5
MOST = 100  # clips on one sheet: image viewers have trouble with larger ones
TILE = (240, 160)  # width and height of the space for a thumbnail, pixels
LINE, MARGIN, TITLE = 16, 10, 34  # height of a line of text, space around tiles, height of the heading, pixels
PAPER, INK, PALE, EMPTY = (250, 250, 248), (24, 24, 26), (110, 110, 112), (224, 224, 222)  # RGB


def check_sheet_name(path: str, more: tuple[str, ...] = ()) -> None:
    """UserError for a file name without the ending of an image format or one of `more`, or a folder that does not
    exist.
    """
    if Path(path).suffix.lower() not in (*ENDINGS, *more):
        raise UserError(f"-o {path}: a contact sheet's name ends with {', '.join((*ENDINGS, *more))}")
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {Path(path).parent}")


def write_contact_sheet(
    path: str, connection: duckdb.DuckDBPyConnection, clips: Sequence[tuple[str, Sequence[str]]], heading: str
) -> None:
    """Draws the first hundred clips, each given by its id and its lines of text, with their thumbnails, which are
    read through a catalog's connection.

    The file appears whole or not at all. Raises UserError if it can't be written.
    """
    shown = clips[:MOST]
    pictures = {
        clip: cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        for clip, jpeg in thumbnails(connection, [clip for clip, _ in shown]).items()
    }
    tiles = [(labels, pictures.get(clip)) for clip, labels in shown]
    more = f" (the first {MOST} of {len(clips):,})" if len(clips) > MOST else ""
    sheet = draw_contact_sheet(f"{heading}{more}", tiles)
    encoded, data = cv2.imencode(Path(path).suffix.lower(), sheet[:, :, ::-1])
    if not encoded:
        raise UserError(f"can't draw {path}: OpenCV does not write {Path(path).suffix}")
    save_sheet(path, data.tobytes())


def save_sheet(path: str, data: str | bytes) -> None:
    """Writes a sheet whole or not at all. Raises UserError."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror}") from error


def thumbnails(connection: duckdb.DuckDBPyConnection, clips: Sequence[str]) -> dict[str, bytes]:
    """The JPEG thumbnails of clips that have one, by clip id."""
    ids = ", ".join(map(literal, clips)) or "NULL"
    rows = connection.execute(f"SELECT clip_id, jpeg FROM thumbnails WHERE clip_id IN ({ids})").fetchall()
    return {clip: jpeg for clip, jpeg in rows if jpeg}


def draw_contact_sheet(heading: str, tiles: Sequence[tuple[Sequence[str], np.ndarray | None]]) -> np.ndarray:
    """The sheet (h, w, 3) uint8 RGB. A tile is lines of text and a picture (h, w, 3) uint8 BGR or None."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = TILE
    columns = min(COLUMNS, max(len(tiles), 2))
    rows = -(-len(tiles) // columns)
    lines = max((len(labels) for labels, _ in tiles), default=0)
    step = (width + MARGIN, height + lines * LINE + MARGIN)
    sheet = Image.new("RGB", (columns * step[0] + MARGIN, TITLE + rows * step[1] + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(17), ImageFont.load_default(12)
    pen.text((MARGIN, 10), _shortened(heading, large, sheet.width - 2 * MARGIN), INK, large)
    for number, (labels, picture) in enumerate(tiles):
        left, top = MARGIN + number % columns * step[0], TITLE + number // columns * step[1]
        pen.rectangle((left, top, left + width - 1, top + height - 1), EMPTY)
        if picture is not None:
            share = min(width / picture.shape[1], height / picture.shape[0])
            size = (max(1, round(picture.shape[1] * share)), max(1, round(picture.shape[0] * share)))
            interpolation = cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR
            resized = cv2.resize(picture, size, interpolation=interpolation)
            thumbnail = Image.fromarray(np.ascontiguousarray(resized[:, :, ::-1]))
            sheet.paste(thumbnail, (left + (width - size[0]) // 2, top + (height - size[1]) // 2))
        for line, text in enumerate(labels):
            place = (left, top + height + 2 + line * LINE)
            pen.text(place, _shortened(text, small, width), PALE if line else INK, small)
    return np.asarray(sheet)


def _shortened(text: str, font: FreeTypeFont | ImageFont, width: int) -> str:
    """The text in one line of at most `width` pixels, with … in place of its middle if it is too long."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(shorter := f"{text[: keep // 2]}…{text[-(keep // 2) :]}") > width:
        keep -= 1
    return shorter
