"""The child's side of `stages.decode.child`: waits for calls on standard input, answers on what was stdout."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

from stages.decode.child import _HEADER, DONE, FAILED, ITEM, PROGRESS, REFUSED, STARTED
from stages.frames import SourceError

HEARTBEAT_S = 0.2  # progress is told at most this often


def serve() -> None:
    """Never returns: the process ends when the parent closes the pipe or dies."""
    parent, memory_bytes, imports = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    answers = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 1)  # stray prints, of Python or of C, go nowhere
    os.dup2(silence, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent)
    if memory_bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(calls,), daemon=True).start()
    for name in imports:
        with contextlib.suppress(Exception):  # a call that needs it will tell
            importlib.import_module(name)
    while True:
        _answer(calls.get(), answers)


def _die_with(parent: int) -> None:
    """Linux: killed with the parent, even while a decoder holds the GIL; first to go when memory is short."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write("500")
    if os.getppid() != parent:  # it died before we could ask
        os._exit(0)


def _listen(calls: queue.SimpleQueue[bytes]) -> None:
    """Reads requests; the end of the pipe means that the parent is gone."""
    pipe = sys.stdin.buffer
    while len(size := pipe.read(8)) == 8:
        request = pipe.read(struct.unpack("<Q", size)[0])
        calls.put(request)
    os._exit(0)


def _answer(request: bytes, answers: BinaryIO) -> None:
    try:
        _send(answers, STARTED, None)
        path, args, kwargs = pickle.loads(request)
        for item in _function(path)(*args, progress=_heartbeat(answers), **kwargs):
            _send(answers, ITEM, item)
        _send(answers, DONE, None)
    except BrokenPipeError:
        os._exit(0)
    except SourceError as error:
        _send(answers, REFUSED, str(error))
    except BaseException as error:
        _send(answers, FAILED, _line(error))


def _function(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _heartbeat(answers: BinaryIO) -> Callable[[int], None]:
    last = time.monotonic()

    def progress(n: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= HEARTBEAT_S:
            last = now
            _send(answers, PROGRESS, n)

    return progress


def _send(answers: BinaryIO, kind: int, value: Any) -> None:
    """Pixels travel beside the pickle, not inside it: no copy is made of them here."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    answers.write(_HEADER.pack(kind, len(parts)) + struct.pack(f"<{len(parts)}Q", *map(len, parts)))
    for part in parts:
        answers.write(part)
    answers.flush()


def _line(error: BaseException) -> str:
    """Type, text and place of an error in one line."""
    text = " ".join(str(error).split())[:300]
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"
    return f"{type(error).__name__}: {text} ({where})" if text else f"{type(error).__name__} ({where})"
