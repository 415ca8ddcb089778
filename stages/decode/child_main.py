"""The decoder's child process: waits for calls at the socket on standard input, answers on what was stdout.

The parent's side is `stages.decode.child`. Descriptors of sources come with the calls, so nothing is opened here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from stages.decode.messages import DONE, FAILED, ITEM, PREFIX, PROGRESS, REFUSED, STARTED, Call, Message, pack
from stages.decode.ranges import RangeReader
from stages.decode.reading import SafeFile
from stages.frames import SourceError

HEARTBEAT_S = 0.2  # progress is told at most this often
MOST_DESCRIPTORS = 2  # of one request: the source, and shared memory


class _Request(NamedTuple):
    fields: dict[str, Any]
    descriptors: list[int]


def serve() -> None:
    """Never returns: the process ends when the parent closes the socket or dies."""
    parent, memory_bytes, imports = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    requests, answers = socket.socket(fileno=os.dup(0)), os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # stray prints, of Python or of C, go nowhere
        os.dup2(silence, standard)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent)
    if memory_bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    calls: queue.SimpleQueue[_Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, calls), daemon=True).start()
    for name in imports:
        with contextlib.suppress(Exception):  # a call that needs it will tell
            importlib.import_module(name)
    server = _Server(answers)
    while True:
        server.answer(calls.get())


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


def _listen(requests: socket.socket, calls: queue.SimpleQueue[_Request]) -> None:
    """Reads requests with their descriptors; the end of the socket means that the parent is gone."""
    close_on_exec = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    descriptors: list[int] = []

    def exactly(length: int) -> Iterator[bytes]:
        while length:
            data, received, _, _ = socket.recv_fds(requests, length, MOST_DESCRIPTORS, close_on_exec)
            descriptors.extend(received)
            if not data:
                os._exit(0)
            length -= len(data)
            yield data

    while True:
        _, length = PREFIX.unpack(b"".join(exactly(PREFIX.size)))
        fields = json.loads(b"".join(exactly(length)))
        calls.put(_Request(fields, descriptors.copy()))
        descriptors.clear()


class _Server:
    """Answers calls one after the other. Keeps the last source, where the task left it open, and shared memory."""

    def __init__(self, answers: BinaryIO):
        self._answers = answers
        self._source: SafeFile | None = None
        self._shared: int | None = None
        self._told = 0.0  # when progress was told last

    def answer(self, request: _Request) -> None:
        try:
            call = self._call(request)
            self._send(STARTED, Message(None))
            self._told = time.monotonic()
            for message in _task(request.fields["task"])(call):
                self._send(ITEM, message)
            self._end(DONE, "")
        except BrokenPipeError:
            os._exit(0)
        except SourceError as error:
            self._end(REFUSED, str(error))
        except BaseException as error:
            self._end(FAILED, _line(error))

    def _call(self, request: _Request) -> Call:
        fields, descriptors = request.fields, request.descriptors
        if fields["source"] is not None or not fields["again"]:
            if self._source is not None:
                self._source.close()
            self._source = _source(descriptors.pop(0), **fields["source"]) if fields["source"] else None
        if fields["shared"]:
            self._shared = descriptors.pop(0)
        return Call(fields["request"], self._source, self._shared, self._progress)

    def _progress(self, n: int) -> None:
        now = time.monotonic()
        if now - self._told >= HEARTBEAT_S:
            self._told = now
            self._send(PROGRESS, Message(n))

    def _end(self, kind: int, reason: str) -> None:
        holds = self._source is not None and not self._source.closed
        self._send(kind, Message([reason.encode("utf-8", "replace").decode(), holds]))

    def _send(self, kind: int, message: Message) -> None:
        for part in pack(kind, message):
            self._answers.write(part)
        self._answers.flush()


def _source(descriptor: int, size: int | None, ranges: bool, start: int | None, modified: float | None) -> SafeFile:
    """The file that the parent opened, or what asks the parent for its bytes."""
    if ranges:
        reader = RangeReader(socket.socket(fileno=descriptor))
        file = SafeFile(reader.read_at, size, reader.close)
    else:
        file = SafeFile.of_descriptor(descriptor, size or 0, start)
    file.modified = modified
    return file


def _task(path: str) -> Callable[[Call], Iterator[Message]]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _line(error: BaseException) -> str:
    """Type, text and place of an error in one line."""
    text = " ".join(str(error).split())[:300]
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"
    return f"{type(error).__name__}: {text} ({where})" if text else f"{type(error).__name__} ({where})"
