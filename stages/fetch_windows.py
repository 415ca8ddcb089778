"""Windows decoded by killable children, ahead of whoever wants their pixels and in the order asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stages.child import Child, ChildDied, ChildError, ChildTimeout
from stages.frames import SourceError
from stages.seek import FetchSettings
from stages.windows import Pixels, Window

READ = "stages.window_reader:read"  # what the children run


@dataclass
class _Job:
    window: Window
    answer: Pixels | str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def tell(self, answer: Pixels | str) -> None:
        self.answer = answer
        self.done.set()


class WindowPool:
    """Gives windows their pixels, through children that may be killed.

    `settings` guard a decoder, the limits being those of one window. At most `ahead_bytes` of pixels are on
    the way or wait; `waited_s` counts the seconds that the caller waited for them.
    """

    def __init__(self, children: int = 1, settings: FetchSettings | None = None, ahead_bytes: int = 256 << 20):
        self.settings = settings or FetchSettings()
        self.ahead_bytes = ahead_bytes
        self.waited_s = 0.0
        self._children = [
            Child(imports=("stages.window_reader",), memory_gb=self.settings.memory_gb) for _ in range(children)
        ]
        self._busy = False

    def start(self) -> None:
        """Starts the children, and does not wait for them."""
        for child in self._children:
            child.start()

    def close(self) -> None:
        for child in self._children:
            child.close()

    def __enter__(self) -> WindowPool:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fetch(self, windows: Iterable[Window]) -> Iterator[tuple[Window, Pixels | str]]:
        """Each window with its pixels, or with the reason why it has none; in the order asked.

        A decoder that dies is given one more chance with its window. One that hangs is not, and costs the
        windows of its source that come after.
        """
        if self._busy:
            raise RuntimeError("the pool is in the middle of another fetch")
        self._busy = True
        desk = _Desk(self.ahead_bytes // (2 * len(self._children)))  # so that each child has a run, and one waits
        workers = [threading.Thread(target=self._work, args=(child, desk), daemon=True) for child in self._children]
        for worker in workers:
            worker.start()
        waiting: deque[_Job] = deque()
        ahead = 0
        try:
            for window in windows:
                while waiting and ahead + window.nbytes > self.ahead_bytes:
                    ahead -= waiting[0].window.nbytes
                    yield self._oldest(waiting)
                job = _Job(window)
                waiting.append(job)
                ahead += window.nbytes
                desk.put(job)
                while waiting and waiting[0].done.is_set():
                    ahead -= waiting[0].window.nbytes
                    yield self._oldest(waiting)
            while waiting:
                yield self._oldest(waiting)
        finally:
            desk.leave()
            while running := [worker for worker in workers if worker.is_alive()]:
                if waiting:  # nobody wants the rest
                    for child in self._children:
                        child.interrupt()
                running[0].join(0.05)
            self._busy = False

    def _oldest(self, waiting: deque[_Job]) -> tuple[Window, Pixels | str]:
        began = time.monotonic()
        waiting[0].done.wait()
        self.waited_s += time.monotonic() - began
        job = waiting.popleft()
        return job.window, job.answer

    def _work(self, child: Child, desk: _Desk) -> None:
        while (job := desk.take(child)) is not None:
            reason = desk.hung.get(job.window.uri)
            if reason is not None:
                job.tell(reason)
                continue
            try:
                job.tell(self._read(child, job.window, desk))
            except ChildTimeout as error:
                desk.hung[job.window.uri] = str(error)
                job.tell(str(error))
            except BaseException as error:
                job.tell(" ".join(f"{type(error).__name__}: {error}".split())[:300])

    def _read(self, child: Child, window: Window, desk: _Desk) -> Pixels | str:
        """The window's pixels or the reason why there are none. Raises ChildTimeout."""
        limits = {"stall_s": self.settings.stall_seconds, "limit_s": self.settings.limit_seconds}
        reason = ""
        for _ in range(2):
            if desk.leaving:
                break
            try:
                (pixels,) = child.call(READ, window, self.settings.threads, **limits)
                return pixels
            except ChildDied as error:
                reason = str(error)
            except (SourceError, ChildError) as error:
                return str(error)
        return reason


class _Run:
    """Jobs of one source in a row, which one child does: it opens the source and seeks in it once."""

    def __init__(self, uri: str):
        self.uri = uri
        self.jobs: deque[_Job] = deque()
        self.nbytes = 0  # of all that were ever put in
        self.grows = True


class _Desk:
    """Hands jobs to the children, in runs of at most `run_bytes` of pixels (or one job)."""

    def __init__(self, run_bytes: int) -> None:
        self.leaving = False
        self.hung: dict[str, str] = {}  # sources in which a decoder hung, with the reason
        self._run_bytes = run_bytes
        self._changed = threading.Condition()
        self._runs: deque[_Run] = deque()  # that nobody has taken
        self._taken: dict[Child, _Run] = {}
        self._newest = _Run("")
        self._newest.grows = False

    def put(self, job: _Job) -> None:
        with self._changed:
            run, size = self._newest, job.window.nbytes
            if not run.grows or run.uri != job.window.uri or run.nbytes + size > self._run_bytes:
                run = self._newest = _Run(job.window.uri)
                self._runs.append(run)
            run.jobs.append(job)
            run.nbytes += size
            self._changed.notify_all()

    def take(self, child: Child) -> _Job | None:
        """The next job of a child, waited for; None when it has to go."""
        with self._changed:
            while not self.leaving:
                run = self._taken.get(child)
                if run is not None and run.jobs:
                    return run.jobs.popleft()
                if self._runs:
                    if run is not None:
                        run.grows = False
                    self._taken[child] = self._runs.popleft()
                else:
                    self._changed.wait()
        return None

    def leave(self) -> None:
        with self._changed:
            self.leaving = True
            self._changed.notify_all()
