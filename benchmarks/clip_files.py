"""What a clip costs as MP4: a stream copy, with the two decodes that prove it, beside encoding the same span.

    python benchmarks/clip_files.py VIDEO... [--rounds N]

CPU seconds per second of video, the median over the spans between key frames of each file that can be copied.
"""

from __future__ import annotations

import argparse
import io
import time
from fractions import Fraction
from itertools import pairwise

import av
from measuring import interleaved, median, show

from curate.exports.clip_files.clip_file import write_clip
from curate.exports.clip_files.messages import ClipFileRequest
from stages.decode.fetch import Seeker, open_seeker
from stages.decode.pyav_reader import PyAVReader
from stages.decode.sources import open_source
from stages.windows.window import Window, rate

LEAST_S = 1.0  # a shorter span says little


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    show({"cpu_s_per_video_s": {path.rpartition("/")[2]: measured(path, args.rounds) for path in args.videos}})


def measured(path: str, rounds: int) -> dict[str, float | int | str]:
    windows = spans(path)
    with open_source(path) as file:
        seeker = open_seeker(file, None, 1, lambda n: None)
        windows = [window for window in windows if write_clip(seeker, ClipFileRequest(window), io.BytesIO()).copied]
        if not windows:
            return {"spans": 0}
        seconds = sum(float((window.end_pts - window.start_pts) * window.time_base) for window in windows)
        tasks = {
            "copy": lambda: spent(seeker, windows, copy=True),
            "encode": lambda: spent(seeker, windows, copy=False),
        }
        found = interleaved(rounds, tasks)
    made = {name: median([one / seconds for one in times]) for name, times in found.items()}
    info = seeker.info
    size = f"{info.width}x{info.height}"
    return {"size": size, "spans": len(windows), **made, "copy_share": round(made["copy"] / made["encode"], 3)}


def spans(path: str) -> list[Window]:
    """The windows from each key frame to the next."""
    with open_source(path) as file:
        reader = PyAVReader(file)
        times = [frame.pts for frame in reader]
        info, end = reader.info, reader.last_end_pts
    with av.open(path) as container:
        keys = sorted(packet.pts for packet in container.demux(video=0) if packet.is_keyframe and packet.pts in times)
    found = []
    for start, stop in pairwise([*keys, end]):
        if (stop - start) * info.time_base >= LEAST_S:
            frames = sum(start <= pts < stop for pts in times)
            fps = float(rate(info.fps or 25))
            span = (start, stop, Fraction(info.time_base))
            found.append(Window("clip", path, None, *span, 0.0, fps, frames, None, info.height, info.width))
    return found


def spent(seeker: Seeker, windows: list[Window], copy: bool) -> float:
    began = time.process_time()
    for window in windows:
        write_clip(seeker, ClipFileRequest(window, copy=copy), io.BytesIO())
    return time.process_time() - began


if __name__ == "__main__":
    main()
