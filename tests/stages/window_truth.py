"""What windows must hold, by a decode of the whole file; and windows of the films of the seek tests."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from stages.decode.pyav_reader import PyAVReader
from stages.decode.sources import open_source
from stages.unit import Source
from stages.windows.buckets import Bucket, window_of
from stages.windows.reader import WindowReader
from stages.windows.window import covering
from tests.hostile import write_video
from tests.stages.decode.test_seek import COUNT, FILMS, textured


class UriReader(WindowReader):
    """A WindowReader that opens the source of a window itself; in a run the parent of its process does."""

    opened = ""

    def read(self, window):
        if window.uri != self.opened or self.file.closed:
            self.file, self.opened = open_source(window.uri), window.uri
        return super().read(self.file, window)


def write_films(folder: Path, *names: str) -> Path:
    for name in names:
        write_video(folder / name, textured(), **FILMS[name])
    return folder


@cache
def known(path):
    """(time base, PTS of every frame, end PTS, displayed size) by a decode from the start."""
    with open_source(str(path)) as file:
        reader = PyAVReader(file)
        times = [frame.pts for frame in reader]
        return reader.info.time_base, times, reader.last_end_pts, (reader.info.width, reader.info.height)


def naive(window):
    """(video, PTS): every frame of the file is decoded, and of those the ones displayed at the window's times."""
    base, times, _, size = known(window.uri)
    start = window.start_pts * base + Fraction(window.offset_s).limit_denominator(10**8)
    off = base if base <= Fraction(1, 500) else 0  # a frame may be stamped a tick late; a clock of frames is exact
    shown = [
        max(pts for pts in times if pts * base <= start + k / Fraction(window.fps) + off and pts < window.end_pts)
        for k in range(window.frames)
    ]
    box = covering(size, window.crop, window.height, window.width)
    made = {}
    with open_source(window.uri) as file:
        for frame in PyAVReader(file):
            if frame.pts in shown:
                made[frame.pts] = frame.cropped(box, (window.width, window.height))
    return np.stack([made[pts] for pts in shown]), shown


def spans(path, *cuts):
    """Rows of `clips`: the film cut at these frames."""
    base, times, end, (width, height) = known(str(path))
    bounds = [*(times[cut] for cut in cuts), end]
    return [
        {
            "clip_id": str(i), "media": "video", "start_pts": a, "end_pts": b, "time_base_num": base.numerator,
            "time_base_den": base.denominator, "width": width, "height": height,
        }
        for i, (a, b) in enumerate(pairwise(bounds))
    ]  # fmt: skip


def windows_of(path, clips=4, bucket="5x32x48", fps=12.0):
    rows = spans(path, *range(0, COUNT, COUNT // clips))
    return [window_of(row, Source("s", str(path)), Bucket.parse(bucket), fps) for row in rows]


def same(pixels, window):
    video, pts = naive(window)
    return pixels.pts == pts and np.array_equal(pixels.video, video)
