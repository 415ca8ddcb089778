"""A killable child process: runs a generator function and streams what it yields back over a pipe.

Decoders crash, hang and hold the GIL on hostile files. Here they only take a child with them, which the
parent kills by the clock and replaces. The child starts with Python's safe path, so that the current
directory can't shadow a package; it dies with its parent; nothing it prints reaches the terminal or the pipe.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stages.frames import SourceError

STARTED, ITEM, PROGRESS, DONE, REFUSED, FAILED = range(6)  # kinds of message from the child
START_S = 60.0  # seconds that a child may take to come up and take a request
PIPE_BYTES = 2**20  # asked for the pipe: a thumbnail or a batch of rows goes in one piece

_HEADER = struct.Struct("<BI")  # kind, number of parts; their lengths follow as 64-bit numbers
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from stages.decode.child_main import serve; serve()"
)


class ChildError(Exception):
    """The function raised something other than SourceError: one line with its type, text and place."""


class ChildDied(Exception):
    """The child ended by itself in the middle of a call: one line with the signal or exit code."""


class ChildTimeout(Exception):
    """The child was killed because it made no progress or took too long: one line."""


class Child:
    """One child process, started at once or at the first call, and again after it was killed.

    `imports` are modules that the child loads while it waits for its first call. `memory_gb` limits its
    address space. Calls are one at a time; `close` (or the end of this process) ends the child.
    """

    def __init__(self, imports: tuple[str, ...] = (), memory_gb: float | None = None):
        self._imports = imports
        self._memory_gb = memory_gb
        self._process: subprocess.Popen | None = None
        self._busy = False

    def start(self) -> None:
        """Starts the process unless it runs, and does not wait for it."""
        if self._process is not None and self._process.poll() is not None:
            self._reap()
        if self._process is None:
            limit = str(int(self._memory_gb * 2**30)) if self._memory_gb else "0"
            command = [sys.executable, "-P", "-c", _START, _ROOT, str(os.getpid()), limit, *self._imports]
            self._process = _spawner().submit(_spawn, command).result()

    @property
    def pid(self) -> int | None:
        """Process id of the running child, None when there is none."""
        return self._process.pid if self._process else None

    def call(
        self,
        function: str,
        *args: Any,
        stall_s: float | None = None,
        limit_s: float | None = None,
        on_progress: Callable[[int], None] | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Runs the generator function 'package.module:name' in the child; yields what it yields, as it comes.

        The function gets a keyword `progress`: calling progress(n) tells that it is alive. The child is
        killed when nothing came for `stall_s` or the call took over `limit_s` seconds; the time that the
        caller spends between two items does not count. Raises SourceError as raised by the function,
        ChildError, ChildDied or ChildTimeout. Leaving the iteration early kills the child too.
        """
        if self._busy:
            raise RuntimeError("the child is in the middle of another call")
        self._busy = True
        whole = False
        try:
            self._begin(pickle.dumps((function, args, kwargs), protocol=5))
            clock = _Clock(stall_s, limit_s)
            while True:
                kind, value = self._receive(clock)
                if kind == ITEM:
                    left = time.monotonic()
                    yield value
                    clock.excuse(time.monotonic() - left)
                elif kind == PROGRESS:
                    if on_progress is not None:
                        on_progress(value)
                else:
                    whole = True
                    if kind == REFUSED:
                        raise SourceError(value)
                    if kind == FAILED:
                        raise ChildError(value)
                    return
        finally:
            self._busy = False
            if not whole:
                self.kill()

    def kill(self) -> None:
        """Kills the child and its process group at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._reap()

    def interrupt(self) -> None:
        """Kills the child's processes from another thread than the caller's: that one sees ChildDied, and reaps."""
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

    def _reap(self) -> int:
        process, self._process = self._process, None
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        return code

    def _begin(self, request: bytes) -> None:
        """Hands the request over and waits until the child has it; one that died while idle is replaced."""
        for attempt in (1, 2):
            self.start()
            try:
                with contextlib.suppress(BrokenPipeError):  # the answer pipe tells how it died
                    unsent = memoryview(struct.pack("<Q", len(request)) + request)
                    while unsent:
                        unsent = unsent[self._process.stdin.write(unsent) :]
                self._receive(_Clock(START_S, None))
                return
            except ChildDied:
                if attempt == 2:
                    raise

    def _receive(self, clock: _Clock) -> tuple[int, Any]:
        kind, count = _HEADER.unpack(self._read(_HEADER.size, clock))
        lengths = struct.unpack(f"<{count}Q", self._read(8 * count, clock))
        body, *buffers = (self._read(length, clock) for length in lengths)
        return kind, pickle.loads(body, buffers=buffers)

    def _read(self, length: int, clock: _Clock) -> bytearray:
        data = bytearray(length)
        view, pipe = memoryview(data), self._process.stdout
        while view:
            ready, _, _ = select.select([pipe], [], [], clock.remaining())
            if not ready:
                self.kill()
                raise ChildTimeout(clock.reason())
            got = pipe.readinto(view)
            if not got:
                raise ChildDied(_death(self._reap()))
            clock.alive()
            view = view[got:]
        return data


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
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def reason(self) -> str:
        if self.limit_s is not None and time.monotonic() >= self._began + self.limit_s:
            return f"took longer than {self.limit_s:g} s"
        return f"no progress for {self.stall_s:g} s"


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


def _spawn(command: list[str]) -> subprocess.Popen:
    single = {"OPENCV_FOR_THREADS_NUM": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
        start_new_session=True, env={**os.environ, **single},
    )  # fmt: skip
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return process


def _death(code: int) -> str:
    if code >= 0:
        return f"decoder died (exit code {code})"
    try:
        return f"decoder died (signal {-code}: {signal.Signals(-code).name})"
    except ValueError:
        return f"decoder died (signal {-code})"
