"""Writes videos as H.264 files, GIFs and PNG sheets for people to look at. A video is (T, H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.errors import UserError
from models.files import whole_file
from stages.windows.window import rate

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

ENDINGS = (".mp4", ".gif", ".png")
MARGIN, LINE = 8, 16  # around a picture, and the height of a line of text, pixels
LETTERS = 12  # size of the text, pixels
PAPER, INK = (250, 250, 248), (24, 24, 26)  # RGB
FRAMES_IN_A_STRIP = 9
SMALLEST = 128  # pixels: a smaller picture in a grid or a strip is enlarged by a whole factor to at least this height
LINES = 3  # of text below a picture, at most


def check_name(path: str | Path) -> None:
    """UserError for a name without the ending of a picture, or whose folder does not exist."""
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"-o {path}: the name of a video or picture ends with {', '.join(ENDINGS)}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {path.parent}")


def write_picture(path: str | Path, video: np.ndarray, fps: float) -> None:
    """Writes by the name's ending: .mp4 (H.264 in yuv420p, which every player shows), .gif, which repeats for ever, or
    .png, a strip of frames. The file appears whole or not at all. UserError if it can't be written.
    """
    check_name(path)
    _check(video)
    {".mp4": _write_mp4, ".gif": _write_gif, ".png": _write_png}[Path(path).suffix.lower()](Path(path), video, fps)


def write_sheet(path: str | Path, videos: Sequence[np.ndarray], captions: Sequence[str], fps: float) -> None:
    """Writes several videos to one file, each above its caption: as a grid in .mp4 and .gif, as strips of frames one
    below another in .png.
    """
    check_name(path)
    if Path(path).suffix.lower() == ".png":
        rows = [strip(video, caption) for video, caption in zip(videos, captions, strict=True)]
        write_picture(path, _stacked(rows)[None], fps)
    else:
        write_picture(path, grid(videos, captions), fps)


def side_by_side(originals: Sequence[np.ndarray], reconstructions: Sequence[np.ndarray]) -> np.ndarray:
    """One video (T, H, W, 3): each original above its reconstruction. All have one size; shorter ones stay on their
    last frame.
    """
    pairs = list(zip(originals, reconstructions, strict=True))
    if not pairs:
        raise ValueError("no videos to show")
    frames = max(len(video) for pair in pairs for video in pair)
    columns = [np.concatenate([_lasting(video, frames) for video in pair], axis=1) for pair in pairs]
    return np.concatenate(columns, axis=2)


def grid(videos: Sequence[np.ndarray], captions: Sequence[str], columns: int | None = None) -> np.ndarray:
    """One video (T, H, W, 3) of all videos in rows, each above its caption. Shorter ones stay on their last frame."""
    if not videos:
        raise ValueError("no videos to show")
    videos = [enlarged(video) for video in videos]
    frames = max(len(video) for video in videos)
    height, width = (max(video.shape[side] for video in videos) for side in (1, 2))
    columns = columns or min(len(videos), 8, max(1, round(len(videos) ** 0.5 + 0.4)))
    rows = -(-len(videos) // columns)
    below = max(len(_lines(caption, width)) for caption in captions) * LINE
    step = (height + below + MARGIN, width + MARGIN)
    sheet = np.full((frames, rows * step[0] + MARGIN, columns * step[1] + MARGIN, 3), PAPER, np.uint8)
    for number, (video, caption) in enumerate(zip(videos, captions, strict=True)):
        top, left = MARGIN + number // columns * step[0], MARGIN + number % columns * step[1]
        sheet[:, top : top + video.shape[1], left : left + video.shape[2]] = _lasting(video, frames)
        sheet[:, top + height : top + height + below, left : left + width] = _text(caption, width, below)
    return sheet


def strip(video: np.ndarray, caption: str = "", frames: int = FRAMES_IN_A_STRIP) -> np.ndarray:
    """(H, W, 3): `frames` frames of a video side by side, from the first to the last, above its caption."""
    chosen = np.unique(np.linspace(0, len(video) - 1, min(frames, len(video))).round().astype(int))
    shown = enlarged(video[chosen])
    height, width = shown.shape[1:3]
    across = len(chosen) * (width + MARGIN) - MARGIN
    below = len(_lines(caption, across)) * LINE if caption else 0
    sheet = np.full((height + below + 2 * MARGIN, across + 2 * MARGIN, 3), PAPER, np.uint8)
    for number, frame in enumerate(shown):
        left = MARGIN + number * (width + MARGIN)
        sheet[MARGIN : MARGIN + height, left : left + width] = frame
    if below:
        sheet[MARGIN + height : MARGIN + height + below, MARGIN : MARGIN + across] = _text(caption, across, below)
    return sheet


def enlarged(video: np.ndarray) -> np.ndarray:
    """A small video with each pixel repeated until it is at least `SMALLEST` tall; another as it is."""
    times = max(1, -(-SMALLEST // video.shape[1]))
    return video.repeat(times, axis=1).repeat(times, axis=2)


def _write_mp4(path: Path, video: np.ndarray, fps: float) -> None:
    from curate.exports.clip_files.mp4_writer import MP4Writer

    def write(part: Path) -> None:
        with MP4Writer(part, (video.shape[2], video.shape[1]), rate(fps), len(video)) as writer:
            for pixels in video:
                writer.add(pixels)

    _whole(path, write)


def _write_gif(path: Path, video: np.ndarray, fps: float) -> None:
    from PIL import Image

    frames = [Image.fromarray(np.ascontiguousarray(pixels)) for pixels in video]
    # Durations are whole hundredths of a second: the ends are rounded, so that errors do not add up.
    ends = [round(100 * (number + 1) / fps) for number in range(len(frames))]
    lasting = [10 * max(1, end - start) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def write(part: Path) -> None:
        frames[0].save(
            part, format="GIF", save_all=True, append_images=frames[1:], duration=lasting, loop=0, optimize=False
        )

    _whole(path, write)


def _write_png(path: Path, video: np.ndarray, fps: float) -> None:
    from PIL import Image

    picture = video[0] if len(video) == 1 else strip(video)
    _whole(path, lambda part: Image.fromarray(np.ascontiguousarray(picture)).save(part, format="PNG"))


def _whole(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with the path of a temporary file, which then becomes `path`."""
    try:
        with whole_file(path) as part:
            write(part)
    except OSError as error:  # PyAV's errors are of this kind too
        raise UserError(f"can't write {path}: {error.strerror or error}") from error


def _check(video: np.ndarray) -> None:
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or 0 in video.shape:
        raise ValueError(f"a video of shape {video.shape} and {video.dtype}: expected (T, H, W, 3) uint8")


def _lasting(video: np.ndarray, frames: int) -> np.ndarray:
    return np.concatenate([video, video[-1:].repeat(frames - len(video), axis=0)])


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of any width, one below another."""
    if not rows:
        raise ValueError("no videos to show")
    width = max(row.shape[1] for row in rows)
    sheet = np.full((sum(len(row) for row in rows), width, 3), PAPER, np.uint8)
    top = 0
    for row in rows:
        sheet[top : top + len(row), : row.shape[1]] = row
        top += len(row)
    return sheet


def _text(text: str, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB of a caption."""
    from PIL import Image, ImageDraw

    paper = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(paper)
    for number, line in enumerate(_lines(text, width)):
        pen.text((1, number * LINE + 1), line, INK, _font())
    return np.asarray(paper)


def _lines(text: str, width: int) -> list[str]:
    """The text in at most `LINES` lines of this width in pixels; a longer text ends in an ellipsis."""
    font, lines = _font(), [""]
    for word in "".join(letter if letter.isprintable() else " " for letter in text).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width - 2:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"{lines[LINES - 1]} …"]
    return [_cut(line, font, width - 2) for line in lines]


def _cut(line: str, font: FreeTypeFont | ImageFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"


@cache
def _font() -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(LETTERS)
