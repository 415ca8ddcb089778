"""Makes the MP4 files of clips in killable child processes, in the order asked; clips of one source share one open."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from curate.exports.clip_files.messages import PIECE, ClipFile, ClipFileRequest, parse_answer
from curate.exports.folder import ExportFolder
from stages.base import one_line
from stages.decode.child import Child, ChildDied, ChildTimeout
from stages.decode.settings import FetchSettings

WRITE = "curate.exports.clip_files.clip_file:write"  # what the children run
GROUP = 16  # clips of one source that a child takes at a time
AHEAD = 2  # groups for each child that are made before they are asked for


@dataclass(frozen=True)
class ClipJob:
    """A clip to make a file of; `row` is of no concern here."""

    request: ClipFileRequest
    row: dict[str, Any]


@dataclass(frozen=True)
class MadeClip:
    """`part` is the path of the finished file, which the caller moves or removes; where there is none, `made` says
    why.
    """

    job: ClipJob
    part: str
    made: ClipFile | str


class ClipFilePool:
    """A context manager; the files are temporary ones of `folder`."""

    def __init__(self, children: int, folder: ExportFolder, settings: FetchSettings | None = None):
        self._folder = folder
        self._settings = settings or FetchSettings()
        self._children = [
            Child(("curate.exports.clip_files.clip_file",), self._settings.memory_gb) for _ in range(children)
        ]
        self._idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(children, thread_name_prefix="clip-files")
        self._waiting: deque[Future[MadeClip]] = deque()
        self._hung: dict[str, str] = {}  # sources in which a decoder hung, with the reason
        self._leaving = False

    def __enter__(self) -> ClipFilePool:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the children."""
        self._leaving = True
        for child in self._children:
            child.interrupt()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.close()

    def files(self, jobs: Iterable[ClipJob]) -> Iterator[MadeClip]:
        """Each clip of the jobs. Those of a source should follow one another."""
        groups = _groups(jobs)
        while True:
            for group in islice(groups, max(0, self._room())):
                futures: list[Future[MadeClip]] = [Future() for _ in group]
                self._waiting.extend(futures)
                self._threads.submit(self._make_group, group, futures)
            if not self._waiting:
                return
            yield self._waiting.popleft().result()

    def _room(self) -> int:
        """Groups that may be begun, by the clips that wait."""
        most = AHEAD * len(self._children) * GROUP
        return -(-(most - len(self._waiting)) // GROUP)

    def _make_group(self, group: list[ClipJob], futures: list[Future[MadeClip]]) -> None:
        child = self._idle.get()
        try:
            for job, future in zip(group, futures, strict=True):
                try:
                    future.set_result(self._make(child, job))
                except BaseException as error:  # a full disk, for one
                    future.set_exception(error)
        finally:
            self._idle.put(child)

    def _make(self, child: Child, job: ClipJob) -> MadeClip:
        """A decoder that dies is given one more chance; after one that hangs, its source is given up."""
        uri, reason = job.request.window.uri, ""
        for _ in range(2):
            if self._leaving or uri in self._hung:
                break
            part = self._folder.temporary()
            try:
                return MadeClip(job, part, self._ask(child, job, part))
            except BaseException as error:
                self._folder.drop(part)
                if isinstance(error, OSError) or not isinstance(error, Exception):
                    raise
                reason = one_line(error)[:500]
                if isinstance(error, ChildTimeout):
                    self._hung[uri] = reason
                if not isinstance(error, ChildDied):
                    break
        return MadeClip(job, "", self._hung.get(uri, reason))

    def _ask(self, child: Child, job: ClipJob, part: str) -> ClipFile:
        """Writes the file. Raises SourceError, ChildError, ChildDied, ChildTimeout, and OSError of the disk."""
        made: ClipFile | None = None
        with open(part, "xb") as file:
            for answer in child.call(
                WRITE,
                job.request.to_json(),
                parse_answer,
                source=job.request.window.uri,
                place=job.request.window.place,
                stall_s=self._settings.stall_seconds,
                limit_s=self._settings.limit_seconds,
                most_bytes=PIECE,
            ):
                if isinstance(answer, ClipFile):
                    made = answer
                else:
                    file.write(answer.data)
            if made is None or file.tell() != made.bytes:
                raise ValueError("the decoder's answer ended before the file did")
        return made


def _groups(jobs: Iterable[ClipJob]) -> Iterator[list[ClipJob]]:
    for _, of_source in groupby(jobs, key=lambda job: job.request.window.uri):
        while group := list(islice(of_source, GROUP)):
            yield group
