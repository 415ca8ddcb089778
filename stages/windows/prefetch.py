"""Decodes windows ahead of their consumer, in killable child processes, and gives their pixels in the order asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from functools import partial

from stages.base import one_line
from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.settings import FetchSettings
from stages.windows.messages import ReadRequest, WindowAnswer, parse_answer
from stages.windows.shared_pixels import Arena
from stages.windows.window import Pixels, Window

READ = "stages.windows.reader:read"  # the function that the children run


class WindowPrefetcher:
    """Decodes windows in `children` processes, each of which may be killed.

    `settings` guard a decoder; the limits are those of one window. At most `ahead_bytes` of pixels are being decoded
    or wait for the caller, and one window at least. `waited_s` counts the seconds that the caller waited. `function`
    is what the children run, 'module:name'.
    """

    def __init__(
        self,
        children: int = 1,
        settings: FetchSettings | None = None,
        ahead_bytes: int = 256 << 20,
        function: str = READ,
    ):
        if children < 1:
            raise ValueError(f"children must be 1 or more, not {children}")
        self.settings = settings or FetchSettings()
        self.ahead_bytes = ahead_bytes
        self.function = function
        self.waited_s = 0.0
        self._shared_bytes = 2 * ahead_bytes  # as much again may be in the caller's hands
        limit = self.settings.memory_gb  # of a decoder's address space; shared memory comes on top
        limit = limit and limit + self._shared_bytes / 2**30
        self._children = [Child(imports=("stages.windows.reader",), memory_gb=limit) for _ in range(children)]
        self._arena: Arena | None = None
        self._busy = False

    def start(self) -> None:
        """Starts the children, and does not wait for them."""
        if self._arena is None:
            self._arena = Arena(self._shared_bytes)
        for child in self._children:
            child.shared = self._arena.descriptor
            child.start()

    def close(self) -> None:
        """Ends the children. Pixels that were given stay."""
        for child in self._children:
            child.close()
        if self._arena is not None:
            self._arena.close()
            self._arena = None

    def __enter__(self) -> WindowPrefetcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fetch(self, windows: Iterable[Window]) -> Generator[tuple[Window, Pixels | str], None, None]:
        """Each window with its pixels, or with the reason why it has none; in the order asked.

        A window whose decoder dies is tried once more. After a decoder hangs, the windows of that source which are
        still to come fail too. One call at a time; leaving the iteration early ends the decoders.
        """
        if self._busy:
            raise RuntimeError("the prefetcher is in the middle of another fetch")
        self._busy = True
        self.start()
        jobs = _JobQueue()
        workers = [threading.Thread(target=self._work, args=(child, jobs), daemon=True) for child in self._children]
        for worker in workers:
            worker.start()
        waiting: deque[_Job] = deque()
        ahead = 0
        try:
            for window in windows:
                while waiting and (waiting[0].done.is_set() or ahead + window.nbytes > self.ahead_bytes):
                    ahead -= waiting[0].window.nbytes
                    yield self._oldest(waiting)
                waiting.append(_Job(window))
                ahead += window.nbytes
                jobs.put(waiting[-1])
            while waiting:
                yield self._oldest(waiting)
        finally:
            jobs.leave()
            while running := [worker for worker in workers if worker.is_alive()]:
                for child in self._children if waiting else ():
                    child.interrupt()  # the caller left
                running[0].join(0.05)
            self._busy = False

    def _oldest(self, waiting: deque[_Job]) -> tuple[Window, Pixels | str]:
        began = time.monotonic()
        waiting[0].done.wait()
        self.waited_s += time.monotonic() - began
        job = waiting.popleft()
        return job.window, job.answer

    def _work(self, child: Child, jobs: _JobQueue) -> None:
        """The loop of one thread, which gives jobs to one child until there are no more."""
        while (job := jobs.take(child)) is not None:
            uri = job.window.uri
            try:
                job.answer = jobs.hung.get(uri) or self._read(child, job.window, jobs)
            except ChildTimeout as error:
                job.answer = jobs.hung[uri] = str(error)
            except Exception as error:
                job.answer = one_line(error)[:500]
            finally:
                job.done.set()
            del job  # releases its pixels, which belong to the caller now

    def _read(self, child: Child, window: Window, jobs: _JobQueue) -> Pixels | str:
        """The window's pixels, or how the decoder died twice. Raises SourceError, ChildTimeout, ChildError."""
        reason = ""
        for _ in range(2):
            if not jobs.leaving:
                try:
                    return self._asked(child, window)
                except ChildDied as error:
                    reason = str(error)
        return reason

    def _asked(self, child: Child, window: Window) -> Pixels:
        assert self._arena is not None, "start() was not called"
        room = self._arena.take(window.nbytes)
        try:
            request = ReadRequest(window, room, self.settings.threads)
            answer: WindowAnswer
            (answer,) = child.call(
                self.function,
                request.to_json(),
                partial(parse_answer, window=window),
                source=window.uri,
                place=window.place,
                stall_s=self.settings.stall_seconds,
                limit_s=self.settings.limit_seconds,
                most_bytes=window.nbytes,
            )
            if answer.video is not None:
                return Pixels(answer.video, answer.pts, answer.crop)
            if room is None:
                raise ChildError("malformed answer of the decoder: a window without pixels")
            video, room = self._arena.array(room, window.shape), None  # it gives the room back itself
            return Pixels(video, answer.pts, answer.crop)
        finally:
            if room is not None:
                self._arena.give_back(room)


@dataclass
class _Job:
    window: Window
    answer: Pixels | str = ""
    done: threading.Event = field(default_factory=threading.Event)


class _SourceJobs:
    """Consecutive jobs of one source, for one child: it opens the source and seeks in it once."""

    def __init__(self, uri: str, jobs: Iterable[_Job] = ()):
        self.uri = uri
        self.jobs = deque(jobs)
        self.over = False  # no child works on it any more


class _JobQueue:
    """Hands jobs to the children, grouped by source. An idle child takes the second half of the longest group."""

    def __init__(self) -> None:
        self.leaving = False
        self.hung: dict[str, str] = {}  # sources in which a decoder hung, with the reason
        self._changed = threading.Condition()
        self._free: deque[_SourceJobs] = deque()  # groups that no child has taken
        self._taken: dict[Child, _SourceJobs] = {}
        self._newest = _SourceJobs("")
        self._newest.over = True

    def put(self, job: _Job) -> None:
        with self._changed:
            if self._newest.over or self._newest.uri != job.window.uri:
                self._newest = _SourceJobs(job.window.uri)
                self._free.append(self._newest)
            self._newest.jobs.append(job)
            self._changed.notify_all()

    def take(self, child: Child) -> _Job | None:
        """Waits for the next job of a child; None when the child must stop."""
        with self._changed:
            while not self.leaving:
                mine = self._taken.get(child)
                if mine is not None and mine.jobs:
                    return mine.jobs.popleft()
                other = self._free.popleft() if self._free else self._half()
                if other is None:
                    self._changed.wait()
                    continue
                if mine is not None:
                    mine.over = True
                self._taken[child] = other
        return None

    def leave(self) -> None:
        with self._changed:
            self.leaving = True
            self._changed.notify_all()

    def _half(self) -> _SourceJobs | None:
        """The later half of the longest group; None where no group has two waiting jobs."""
        longest = max(self._taken.values(), key=lambda group: len(group.jobs), default=None)
        if longest is None or len(longest.jobs) < 2:
            return None
        kept = len(longest.jobs) - len(longest.jobs) // 2
        half = _SourceJobs(longest.uri, (longest.jobs.pop() for _ in range(len(longest.jobs) - kept)))
        half.jobs.reverse()
        if longest is self._newest:
            self._newest = half
        return half
