"""Starts the decoder's child process: its environment, its two channels, and what its end means."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

PIPE_BYTES = 2**20  # asked for the pipe: a thumbnail or a batch of rows goes in one piece

# What a child gets of the parent's environment: nothing here can hold a credential.
ENVIRONMENT = {
    "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR", "TZ", "PYTHONPATH", "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "CUDA_VISIBLE_DEVICES",
}  # fmt: skip
ONE_THREAD = {"OPENCV_FOR_THREADS_NUM": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from stages.decode.child_main import serve; serve()"
)


@dataclass
class ChildProcess:
    """A process, the socket for requests to it and the pipe of its answers."""

    process: subprocess.Popen[bytes]
    requests: socket.socket
    answers: io.FileIO
    source: str | None = None  # that the child has kept open
    has_shared: bool = False


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


def spawn(arguments: list[str]) -> ChildProcess:
    """Starts `child_main.serve` in a new process with these arguments, and does not wait for it."""
    return _spawner().submit(_spawn, [sys.executable, "-P", "-c", _START, _ROOT, *arguments]).result()


def _spawn(command: list[str]) -> ChildProcess:
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
    return ChildProcess(process, ours, io.FileIO(reading))


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a child gets of an environment: places of programs and libraries, language, and one thread each."""
    kept = {k: v for k, v in environment.items() if k in ENVIRONMENT or k.startswith("LC_")}
    return kept | ONE_THREAD


def death_line(code: int) -> str:
    """How a process ended, by its exit code; negative ones are signals."""
    if code >= 0:
        return f"decoder died (exit code {code})"
    try:
        return f"decoder died (signal {-code}: {signal.Signals(-code).name})"
    except ValueError:
        return f"decoder died (signal {-code})"
