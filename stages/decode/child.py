"""A killable child process that runs decoders: the parent's side.

Decoders crash, hang and hold the GIL on hostile files. Here they only take a child process with them, which the
parent kills by the clock and replaces. The child is given an open source and never a path or URI, a small part of
the environment without credentials, and no other descriptors. It answers in messages that can't run code
(`stages.decode.messages`). It starts with Python's safe path, so that the current directory can't shadow a package;
it dies with its parent; nothing it prints reaches the terminal or the pipe.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from stages.decode.messages import (
    ARRAY_BYTES,
    DONE,
    FAILED,
    ITEM,
    PREFIX,
    PROGRESS,
    REFUSED,
    STARTED,
    Message,
    parse_header,
    parse_prefix,
)
from stages.decode.sources import Handle, open_handle
from stages.frames import SourceError

START_S = 60.0  # seconds that a child may take to come up and take a request
LONGEST_WAIT_S = 1e6  # for one byte; poll takes no longer time
PIPE_BYTES = 2**20  # asked for the pipe: a thumbnail or a batch of rows goes in one piece
REASON_CHARACTERS = 1000  # of an error that the child reports

# What a child gets of the parent's environment: nothing here can hold a credential.
ENVIRONMENT = {
    "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR", "TZ", "PYTHONPATH", "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
}  # fmt: skip
ONE_THREAD = {"OPENCV_FOR_THREADS_NUM": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from stages.decode.child_main import serve; serve()"
)

D = TypeVar("D")
T = TypeVar("T")


class ChildError(Exception):
    """The task raised something other than SourceError, or its answer was malformed: one line."""


class ChildDied(Exception):
    """The child ended by itself in the middle of a call: one line with the signal or exit code."""


class ChildTimeout(Exception):
    """The child was killed because it made no progress or took too long: one line."""


class Child:
    """One child process, started at once or at the first call, and again after it was killed.

    `imports` are modules that the child loads while it waits for its first call. `memory_gb` limits its address
    space. `shared`, the descriptor of memory that the child may map, is given to each process with its first call.
    Calls are one at a time; `close` (or the end of this process) ends the child.
    """

    def __init__(self, imports: tuple[str, ...] = (), memory_gb: float | None = None):
        self.shared: int | None = None
        self._imports = imports
        self._memory_gb = memory_gb
        self._running: _Running | None = None
        self._busy = False
        self._at_work = False  # the process was sent a call and has not ended it
        self._opening: queue.SimpleQueue[Handle | BaseException] | None = None  # where an open source is waited for

    def start(self) -> None:
        """Starts the process unless it runs, and does not wait for it."""
        self._started()

    @property
    def pid(self) -> int | None:
        """Process id of the running child, None when there is none."""
        running = self._running
        return running.process.pid if running else None

    def call(
        self,
        task: str,
        request: object,
        parse: Callable[[Message], T],
        *,
        source: str | None = None,
        stall_s: float | None = None,
        limit_s: float | None = None,
        most_bytes: int = ARRAY_BYTES,
    ) -> Iterator[T]:
        """Runs the generator function 'package.module:name' in the child; yields its messages, as they come.

        The function gets a `messages.Call` with the request (anything that JSON can hold) and the open source.
        `parse` checks a message and gives what is yielded; its ValueError makes the call fail. A message may have
        `most_bytes` of arrays. The child is killed when nothing came for `stall_s` or the call took over `limit_s`
        seconds; the time that the caller spends between two items does not count.

        Raises SourceError for a source that can't be opened or as raised by the function, ChildError, ChildDied or
        ChildTimeout. Leaving the iteration early kills the child too.
        """
        if self._busy:
            raise RuntimeError("the child is in the middle of another call")
        self._busy = True
        try:
            clock = _Clock(stall_s, limit_s)
            running = self._begin(task, request, source, clock)
            while True:
                kind, message = self._receive(running, clock, most_bytes)
                if kind == ITEM:
                    item = _checked(parse, message)
                    left = time.monotonic()
                    yield item
                    clock.excuse(time.monotonic() - left)
                elif kind != PROGRESS:
                    reason, holds = _checked(_end, message)
                    self._at_work = False
                    running.source = source if holds else None
                    if kind == REFUSED:
                        raise SourceError(reason)
                    if kind == FAILED:
                        raise ChildError(reason)
                    if kind == DONE:
                        return
        finally:
            self._busy = False
            if self._at_work:
                self.kill()

    def kill(self) -> None:
        """Kills the child and its process group at once."""
        self.interrupt()
        self._reap()

    def interrupt(self) -> None:
        """Ends the call from another thread than the caller's, which gets ChildDied: kills the child's processes."""
        if (opening := self._opening) is not None:
            opening.put(ChildDied("interrupted while its source was being opened"))
        if pid := self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the child."""
        self.kill()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.kill()

    def _started(self) -> _Running:
        if self._running is not None and self._running.process.poll() is not None:
            self._reap()
        if self._running is None:
            limit = str(int(self._memory_gb * 2**30)) if self._memory_gb else "0"
            command = [sys.executable, "-P", "-c", _START, _ROOT, str(os.getpid()), limit, *self._imports]
            self._running = _spawner().submit(_spawn, command).result()
        return self._running

    def _reap(self) -> int:
        """The exit code of the ended process; 0 where there is none."""
        running, self._running, self._at_work = self._running, None, False
        if running is None:
            return 0
        code = running.process.wait()
        running.requests.close()
        running.answers.close()
        return code

    def _begin(self, task: str, request: object, source: str | None, clock: _Clock) -> _Running:
        """Hands the request over and waits until the child has it; one that died while idle is replaced."""
        handle: Handle | None = None
        try:
            for attempt in (1, 2):
                running = self._started()
                if source is not None and source != running.source and handle is None:
                    handle = self._open(source, clock)
                began, self._at_work = time.monotonic(), True
                try:
                    self._send(running, task, request, source, handle)
                    kind, _ = self._receive(running, _Clock(START_S, START_S), 0)
                    if kind != STARTED:
                        raise ChildError(f"malformed answer of the decoder: kind {kind} before the start")
                    break
                except ChildDied:
                    if attempt == 2:
                        raise
            clock.excuse(time.monotonic() - began)
            running.source, running.has_shared = None, True
            return running
        finally:
            if handle is not None:
                handle.channel.close()  # the child has its own descriptor now

    def _open(self, source: str, clock: _Clock) -> Handle:
        """The open source. A thread opens it, because a store or a network file system may hang.

        Raises SourceError, ChildTimeout.
        """
        answer: queue.SimpleQueue[Handle | BaseException] = queue.SimpleQueue()
        self._opening = answer

        def work() -> None:
            try:
                answer.put(open_handle(source))
            except BaseException as error:
                answer.put(error)

        threading.Thread(target=work, name="open-source", daemon=True).start()
        try:
            found = answer.get(timeout=clock.remaining())
        except queue.Empty:
            raise ChildTimeout(clock.reason()) from None
        finally:
            self._opening = None
        if isinstance(found, BaseException):
            raise found
        return found

    def _send(self, running: _Running, task: str, request: object, source: str | None, handle: Handle | None) -> None:
        descriptors = [] if handle is None else [handle.channel.fileno()]
        given = None if handle is None else {"size": handle.size, "ranges": handle.ranges}
        shares = self.shared is not None and not running.has_shared
        if self.shared is not None and shares:
            descriptors.append(self.shared)
        fields = {"task": task, "request": request, "source": given, "again": source is not None, "shared": shares}
        body = json.dumps(fields).encode()
        unsent = memoryview(PREFIX.pack(STARTED, len(body)) + body)
        clock = _Clock(START_S, START_S)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the answer pipe tells how it died
            while unsent:
                self._wait(running.requests.fileno(), select.POLLOUT, clock)
                with contextlib.suppress(BlockingIOError):
                    unsent = unsent[socket.send_fds(running.requests, [unsent], descriptors) :]
                    descriptors = []

    def _receive(self, running: _Running, clock: _Clock, most_bytes: int) -> tuple[int, Message]:
        prefix = _checked(parse_prefix, self._read(running, np.empty(PREFIX.size, np.uint8), clock).tobytes())
        data = self._read(running, np.empty(prefix.header_bytes, np.uint8), clock).tobytes()
        header = _checked(lambda data: parse_header(data, most_bytes), data)
        arrays = [self._read(running, np.empty(shape, np.uint8), clock) for shape in header.shapes]
        return prefix.kind, Message(header.fields, arrays)

    def _read(self, running: _Running, array: np.ndarray, clock: _Clock) -> np.ndarray:
        """The array, filled from the answer pipe."""
        view = array.reshape(-1).data
        while view:
            self._wait(running.answers.fileno(), select.POLLIN, clock)
            got = running.answers.readinto(view)
            if not got:
                raise ChildDied(_death(self._reap()))
            clock.alive()
            view = view[got:]
        return array

    def _wait(self, descriptor: int, event: int, clock: _Clock) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        remaining = clock.remaining()
        if not poll.poll(None if remaining is None else math.ceil(1000 * remaining)):
            self.kill()
            raise ChildTimeout(clock.reason())


@dataclass
class _Running:
    """A process, the socket for requests to it and the pipe of its answers."""

    process: subprocess.Popen[bytes]
    requests: socket.socket
    answers: io.FileIO
    source: str | None = None  # that the child has kept open
    has_shared: bool = False


class _Clock:
    """When to give up on a call: seconds without a byte, and seconds in all; excused time is free."""

    def __init__(self, stall_s: float | None, limit_s: float | None):
        self.stall_s, self.limit_s = stall_s, limit_s
        self._began = self._heard = time.monotonic()

    def alive(self) -> None:
        self._heard = time.monotonic()

    def excuse(self, seconds: float) -> None:
        self._began += seconds
        self._heard = time.monotonic()

    def remaining(self) -> float | None:
        """Seconds that may still be waited for the next byte; None: for ever."""
        ends = []
        if self.stall_s is not None:
            ends.append(self._heard + self.stall_s)
        if self.limit_s is not None:
            ends.append(self._began + self.limit_s)
        return min(LONGEST_WAIT_S, max(0.0, min(ends) - time.monotonic())) if ends else None

    def reason(self) -> str:
        if self.limit_s is not None and time.monotonic() >= self._began + self.limit_s:
            return f"took longer than {self.limit_s:g} s"
        return f"no progress for {self.stall_s:g} s"


def _checked(parse: Callable[[D], T], data: D) -> T:
    """What `parse` makes of a message; ChildError where the child sent something malformed."""
    try:
        return parse(data)
    except (ValueError, TypeError, LookupError) as error:
        text = " ".join(str(error).split())[:200]
        raise ChildError(f"malformed answer of the decoder: {text}") from error


def _end(message: Message) -> tuple[str, bool]:
    """Of a last message: why the task failed, '' where it did not, and whether the child keeps the source open."""
    match message.fields:
        case [str(reason), bool(holds)]:
            return " ".join(reason.split())[:REASON_CHARACTERS], holds
    raise ValueError("the last message is not [reason, whether the source is open]")


_spawn_thread: ThreadPoolExecutor | None = None
_spawn_lock = threading.Lock()


def _spawner() -> ThreadPoolExecutor:
    """The one thread that starts children.

    Linux kills a child when the *thread* that started it ends, and callers may come from short-lived threads.
    """
    global _spawn_thread
    with _spawn_lock:
        if _spawn_thread is None:
            _spawn_thread = ThreadPoolExecutor(1, thread_name_prefix="child-spawner")
        return _spawn_thread


def _spawn(command: list[str]) -> _Running:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=writing, stderr=subprocess.DEVNULL, bufsize=0,
            start_new_session=True, close_fds=True, env=child_environment(os.environ),
        )  # fmt: skip
    except BaseException:
        ours.close()
        os.close(reading)
        raise
    finally:
        theirs.close()
        os.close(writing)
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    ours.setblocking(False)
    return _Running(process, ours, io.FileIO(reading))


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a child gets of an environment: places of programs and libraries, language, and one thread each."""
    kept = {k: v for k, v in environment.items() if k in ENVIRONMENT or k.startswith("LC_")}
    return kept | ONE_THREAD


def _death(code: int) -> str:
    if code >= 0:
        return f"decoder died (exit code {code})"
    try:
        return f"decoder died (signal {-code}: {signal.Signals(-code).name})"
    except ValueError:
        return f"decoder died (signal {-code})"
