"""A killable child process that runs decoders: the parent's side.

Decoders crash, hang and hold the GIL on hostile files. Here they only take a child process with them, which the
parent kills by the clock and replaces. The child is given an open source and never a path or URI, a small part of
the environment without credentials, and no other descriptors. It answers in messages that can't run code
(`stages.decode.messages`). It starts with Python's safe path, so that the current directory can't shadow a package;
it dies with its parent; nothing it prints reaches the terminal or the pipe.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from stages.decode.call_clock import CallClock
from stages.decode.child_process import ChildProcess, death_line, spawn
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
from stages.unit import Place

START_S = 60.0  # seconds that a child may take to come up and take a request
REASON_CHARACTERS = 1000  # of an error that the child reports

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
        self._running: ChildProcess | None = None
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
        place: Place | None = None,
        stall_s: float | None = None,
        limit_s: float | None = None,
        most_bytes: int = ARRAY_BYTES,
    ) -> Iterator[T]:
        """Runs the generator function 'package.module:name' in the child; yields its messages, as they come.

        The function gets a `messages.Call` with the request (anything that JSON can hold) and the open source;
        `place` is where that was seen in its archive.
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
            clock = CallClock(stall_s, limit_s)
            running = self._begin(task, request, source, place, clock)
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

    def _started(self) -> ChildProcess:
        if self._running is not None and self._running.process.poll() is not None:
            self._reap()
        if self._running is None:
            limit = str(int(self._memory_gb * 2**30)) if self._memory_gb else "0"
            self._running = spawn([str(os.getpid()), limit, *self._imports])
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

    def _begin(
        self, task: str, request: object, source: str | None, place: Place | None, clock: CallClock
    ) -> ChildProcess:
        """Hands the request over and waits until the child has it; one that died while idle is replaced."""
        handle: Handle | None = None
        try:
            for attempt in (1, 2):
                running = self._started()
                if source is not None and source != running.source and handle is None:
                    handle = self._open(source, place, clock)
                began, self._at_work = time.monotonic(), True
                try:
                    self._send(running, task, request, source, handle)
                    kind, _ = self._receive(running, CallClock(START_S, START_S), 0)
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

    def _open(self, source: str, place: Place | None, clock: CallClock) -> Handle:
        """The open source. A thread opens it, because a store or a network file system may hang.

        Raises SourceError, ChildTimeout.
        """
        answer: queue.SimpleQueue[Handle | BaseException] = queue.SimpleQueue()
        self._opening = answer

        def work() -> None:
            try:
                answer.put(open_handle(source, place))
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

    def _send(
        self, running: ChildProcess, task: str, request: object, source: str | None, handle: Handle | None
    ) -> None:
        descriptors = [] if handle is None else [handle.channel.fileno()]
        given = None if handle is None else {n: getattr(handle, n) for n in ("size", "ranges", "start", "modified")}
        shares = self.shared is not None and not running.has_shared
        if self.shared is not None and shares:
            descriptors.append(self.shared)
        fields = {"task": task, "request": request, "source": given, "again": source is not None, "shared": shares}
        body = json.dumps(fields).encode()
        unsent = memoryview(PREFIX.pack(STARTED, len(body)) + body)
        clock = CallClock(START_S, START_S)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the answer pipe tells how it died
            while unsent:
                self._wait(running.requests.fileno(), select.POLLOUT, clock)
                with contextlib.suppress(BlockingIOError):
                    unsent = unsent[socket.send_fds(running.requests, [unsent], descriptors) :]
                    descriptors = []

    def _receive(self, running: ChildProcess, clock: CallClock, most_bytes: int) -> tuple[int, Message]:
        prefix = _checked(parse_prefix, self._read(running, np.empty(PREFIX.size, np.uint8), clock).tobytes())
        data = self._read(running, np.empty(prefix.header_bytes, np.uint8), clock).tobytes()
        header = _checked(lambda data: parse_header(data, most_bytes), data)
        arrays = [self._read(running, np.empty(shape, np.uint8), clock) for shape in header.shapes]
        return prefix.kind, Message(header.fields, arrays)

    def _read(self, running: ChildProcess, array: np.ndarray, clock: CallClock) -> np.ndarray:
        """The array, filled from the answer pipe."""
        view = array.reshape(-1).data
        while view:
            self._wait(running.answers.fileno(), select.POLLIN, clock)
            got = running.answers.readinto(view)
            if not got:
                raise ChildDied(death_line(self._reap()))
            clock.alive()
            view = view[got:]
        return array

    def _wait(self, descriptor: int, event: int, clock: CallClock) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        remaining = clock.remaining()
        if not poll.poll(None if remaining is None else math.ceil(1000 * remaining)):
            self.kill()
            raise ChildTimeout(clock.reason())


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
