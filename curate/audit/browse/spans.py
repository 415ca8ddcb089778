"""Clips as MP4 that a browser plays: exactly their span, cut by PTS in killable children as exports are.

Packets of the source are copied where browsers play its codec and the copy shows the same frames; else the span is
encoded, at 720 lines at most. The last files are kept in memory, none on disk.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from curate.errors import UserError
from curate.exports.clip_files.messages import PIECE, ClipFile, parse_answer
from curate.exports.clip_pool import WRITE
from curate.exports.clip_rows import ClipFileSettings
from stages.base import one_line
from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.settings import FetchSettings
from stages.frames import SourceError

PLAYED = {("h264", "yuv420p"), ("vp9", "yuv420p"), ("av1", "yuv420p")}  # by browsers of today, in MP4
LINES = 720  # of the shorter side of what is encoded
CRF = 23  # x264's default: a picture to look at, not to train on
SECONDS = 120.0  # to make one file
KEPT_BYTES = 256 << 20  # of finished files in memory


class Spans:
    """A context manager, which ends the children. `mp4` may be called by any number of threads."""

    def __init__(self, children: int):
        self._memory_gb = FetchSettings().memory_gb
        self._children: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._all = [Child(("curate.exports.clip_files.clip_file",), self._memory_gb) for _ in range(children)]
        for child in self._all:
            self._children.put(child)
        self._threads = ThreadPoolExecutor(children, thread_name_prefix="spans")
        self._files: OrderedDict[str, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def __enter__(self) -> Spans:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._all:
            child.interrupt()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._all:
            child.close()

    def mp4(self, row: dict[str, Any]) -> bytes:
        """The file of a clip, a row of the question `span`. Raises UserError with what is wrong with its source."""
        clip_id = row["clip_id"]
        with self._lock:
            if (made := self._files.get(clip_id)) is None:
                made = self._files[clip_id] = self._threads.submit(self._make, row)
            self._files.move_to_end(clip_id)
        try:
            data = made.result()
        except BaseException:
            with self._lock:
                self._files.pop(clip_id, None)  # the next one who asks tries again
            raise
        self._forget_oldest()
        return data

    def forget(self) -> None:
        """Drops all finished files: the catalog has changed."""
        with self._lock:
            self._files.clear()

    def _forget_oldest(self) -> None:
        with self._lock:
            done = [
                (name, len(file.result())) for name, file in self._files.items() if file.done() and not file.exception()
            ]
            spare = sum(size for _, size in done) - KEPT_BYTES
            for name, size in done[:-1]:
                if spare <= 0:
                    break
                del self._files[name]
                spare -= size

    def _make(self, row: dict[str, Any]) -> bytes:
        child = self._children.get()
        try:
            return self._ask(child, row)
        except (SourceError, ChildError, ChildDied, ChildTimeout) as error:
            place = f"{row['uri']}, {row['start_s']:.3f} to {row['end_s']:.3f} s"
            raise UserError(f"can't be played: {one_line(error)[:500]} ({place})") from error
        finally:
            self._children.put(child)

    def _ask(self, child: Child, row: dict[str, Any]) -> bytes:
        played = (row["source_codec"], row["source_pixels"]) in PLAYED
        small = min(row["width"], row["height"]) <= LINES
        settings = ClipFileSettings(size=None if small else str(LINES), crf=CRF, copy_streams=played and small)
        request = settings.request(row)
        pieces: list[bytes] = []
        made: ClipFile | None = None
        for answer in child.call(
            WRITE, request.to_json(), parse_answer, source=request.window.uri, place=request.window.place,
            stall_s=SECONDS, limit_s=SECONDS, most_bytes=PIECE,
        ):  # fmt: skip
            if isinstance(answer, ClipFile):
                made = answer
            else:
                pieces.append(answer.tobytes())
        data = b"".join(pieces)
        if made is None or len(data) != made.bytes:
            raise ChildError("the decoder's answer ended before the file did")
        return data
