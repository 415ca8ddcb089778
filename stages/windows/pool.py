"""Windows decoded by killable children, ahead of whoever wants their pixels and in the order asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stages.base import one_line
from stages.decode.child import Child, ChildDied, ChildTimeout
from stages.decode.settings import FetchSettings
from stages.windows.shared_pixels import Arena
from stages.windows.window import Pixels, Window

READ = "stages.windows.reader:read"  # what the children run


class WindowPool:
    """Gives windows their pixels, through children that may be killed.

    `settings` guard a decoder; the limits are those of one window. At most `ahead_bytes` of pixels are on
    the way or wait, and one window at least; `waited_s` counts the seconds that the caller waited for them.
    """

    def __init__(self, children: int = 1, settings: FetchSettings | None = None, ahead_bytes: int = 256 << 20):
        if children < 1:
            raise ValueError(f"children must be 1 or more, not {children}")
        self.settings = settings or FetchSettings()
        self.ahead_bytes = ahead_bytes
        self.waited_s = 0.0
        self._shared_bytes = 2 * ahead_bytes  # as much again may be in the caller's hands
        limit = self.settings.memory_gb  # of a decoder's address space: what it shares comes on top
        limit = limit and limit + self._shared_bytes / 2**30
        self._children = [Child(imports=("stages.windows.reader",), memory_gb=limit) for _ in range(children)]
        self._arena: Arena | None = None
        self._busy = False

    def start(self) -> None:
        """Starts the children, and does not wait for them."""
        if self._arena is None:
            self._arena = Arena(self._shared_bytes)
        for child in self._children:
            child.start()

    def close(self) -> None:
        """Ends the children. Pixels that were given stay."""
        for child in self._children:
            child.close()
        if self._arena is not None:
            self._arena.close()
            self._arena = None

    def __enter__(self) -> WindowPool:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fetch(self, windows: Iterable[Window]) -> Iterator[tuple[Window, Pixels | str]]:
        """Each window with its pixels, or with the reason why it has none; in the order asked.

        A decoder that dies is given one more chance with its window. One that hangs is not, and costs the
        windows of its source that are still to come. One call at a time; leaving it early ends the decoders.
        """
        if self._busy:
            raise RuntimeError("the pool is in the middle of another fetch")
        self._busy = True
        self.start()
        desk = _Desk()
        workers = [threading.Thread(target=self._work, args=(child, desk), daemon=True) for child in self._children]
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
                desk.put(waiting[-1])
            while waiting:
                yield self._oldest(waiting)
        finally:
            desk.leave()
            while running := [worker for worker in workers if worker.is_alive()]:
                for child in self._children if waiting else ():
                    child.interrupt()  # nobody wants the rest
                running[0].join(0.05)
            self._busy = False

    def _oldest(self, waiting: deque[_Job]) -> tuple[Window, Pixels | str]:
        began = time.monotonic()
        waiting[0].done.wait()
        self.waited_s += time.monotonic() - began
        job = waiting.popleft()
        return job.window, job.answer

    def _work(self, child: Child, desk: _Desk) -> None:
        """What a thread does for each child, until there is no more to do."""
        while (job := desk.take(child)) is not None:
            uri = job.window.uri
            try:
                job.answer = desk.hung.get(uri) or self._read(child, job.window, desk)
            except ChildTimeout as error:
                job.answer = desk.hung[uri] = str(error)
            except Exception as error:
                job.answer = one_line(error)[:500]
            finally:
                job.done.set()
            del job  # its pixels are the caller's now

    def _read(self, child: Child, window: Window, desk: _Desk) -> Pixels | str:
        """The window's pixels, or how the decoder died twice. Raises SourceError, ChildTimeout, ChildError."""
        reason = ""
        for _ in range(2):
            if not desk.leaving:
                try:
                    return self._asked(child, window)
                except ChildDied as error:
                    reason = str(error)
        return reason

    def _asked(self, child: Child, window: Window) -> Pixels:
        limits = {"stall_s": self.settings.stall_seconds, "limit_s": self.settings.limit_seconds}
        room = self._arena.take(window.nbytes)
        try:
            (answer,) = child.call(READ, window, room, self.settings.threads, **limits)
            if isinstance(answer, Pixels):
                return answer
            pts, crop = answer
            video, room = self._arena.array(room, window.shape), None  # it gives the room back itself
            return Pixels(video, pts, crop)
        finally:
            if room is not None:
                self._arena.give_back(room)


@dataclass
class _Job:
    window: Window
    answer: Pixels | str = ""
    done: threading.Event = field(default_factory=threading.Event)


class _Run:
    """Jobs of one source in a row, which one child does: it opens the source and seeks in it once."""

    def __init__(self, uri: str, jobs: Iterable[_Job] = ()):
        self.uri = uri
        self.jobs = deque(jobs)
        self.over = False  # nobody is at it any more


class _Desk:
    """Hands jobs to the children in runs. A child with nothing to do takes the second half of the longest."""

    def __init__(self) -> None:
        self.leaving = False
        self.hung: dict[str, str] = {}  # sources in which a decoder hung, with the reason
        self._changed = threading.Condition()
        self._free: deque[_Run] = deque()  # runs that nobody has taken
        self._taken: dict[Child, _Run] = {}
        self._newest = _Run("")
        self._newest.over = True

    def put(self, job: _Job) -> None:
        with self._changed:
            if self._newest.over or self._newest.uri != job.window.uri:
                self._newest = _Run(job.window.uri)
                self._free.append(self._newest)
            self._newest.jobs.append(job)
            self._changed.notify_all()

    def take(self, child: Child) -> _Job | None:
        """The next job of a child, waited for; None when it has to go."""
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

    def _half(self) -> _Run | None:
        """The later half of the longest run; None where no run has two jobs that wait."""
        longest = max(self._taken.values(), key=lambda run: len(run.jobs), default=None)
        if longest is None or len(longest.jobs) < 2:
            return None
        kept = len(longest.jobs) - len(longest.jobs) // 2
        half = _Run(longest.uri, (longest.jobs.pop() for _ in range(len(longest.jobs) - kept)))
        half.jobs.reverse()
        if longest is self._newest:
            self._newest = half
        return half
