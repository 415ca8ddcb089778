"""What the tests of the child run in it, and how they ask for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from stages.decode.messages import ITEM, PREFIX, Message
from stages.decode.pyav_reader import PyAVReader
from stages.frames import SourceError

HERE = "tests.stages.decode.child_tasks"


def numbers(call):
    for i in range(call.request):
        yield Message(i, [np.full((50, 60, 3), i, np.uint8)])


def echo(call):
    yield Message(call.request)


def noise(call):
    rng = np.random.default_rng(0)
    yield Message(None, [rng.integers(0, 255, (3000, 3000), dtype=np.uint8)[::2, ::3], np.empty((0, 3), np.uint8)])


def whole(call):
    with call.file as file:
        yield Message(None, [np.frombuffer(file.read(), np.uint8)])


def prints(call):
    print("to standard output", flush=True)
    os.write(1, b"straight to the descriptor")
    os.write(2, b"and to the other")
    yield Message("clean")


def refuses(call):
    yield Message(1)
    raise SourceError("a reason\nin two lines")


def breaks(call):
    yield Message(1)
    raise ValueError("bad\nvalue")


def crashes(call):
    yield Message(1)
    ctypes.string_at(0)


def hangs_holding_the_gil(call):
    yield Message(1)
    ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the GIL, as decord's deadlock does


def works_on(call):
    began = time.monotonic()
    while time.monotonic() - began < call.request:
        time.sleep(0.02)
        call.progress(1)
    yield Message("done")


def starts_a_helper(call):
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield Message(helper.pid)
    time.sleep(600)


def takes_memory(call):
    yield Message(len(bytearray(call.request)))


def where(call):
    import models

    yield Message([sys.path, models.__file__, signal.getsignal(signal.SIGINT) == signal.SIG_IGN])


def surroundings(call):
    """The environment, and what each open descriptor refers to."""
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
    yield Message([dict(os.environ), descriptors])


def reads(call):
    with call.file as file:
        yield Message([file.read().decode(), file.content_hash(), file.size])


def keeps(call):
    """Reads a part of a source, and leaves it open for the next call."""
    call.file.seek(0)
    yield Message([call.file.read(4).decode(), id(call.file)])


def says(call):
    """Puts forged bytes on the answer pipe, which a hostile file might make the decoder do."""
    pipes = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_pipe(fd)]
    os.write(pipes[0], bytes.fromhex(call.request))
    time.sleep(600)
    yield


def says_and_ends(call):
    pipes = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_pipe(fd)]
    os.write(pipes[0], bytes.fromhex(call.request))
    os._exit(3)
    yield


def drips(call):
    pipes = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_pipe(fd)]
    for byte in PREFIX.pack(ITEM, 100_000) + bytes(100_000):
        os.write(pipes[0], bytes([byte]))
        time.sleep(0.01)
    yield


def decodes_once_unlinked(call):
    yield Message("open")
    while os.fstat(call.file.local_descriptor).st_nlink:
        time.sleep(0.01)
    frames = sum(1 for _ in PyAVReader(call.file))
    yield Message([frames, call.file.content_hash()])


def reads_remote(call):
    with call.file as file:
        loaded = [name for name in ("s3fs", "botocore", "aiohttp") if name in sys.modules]
        yield Message([file.content_hash(), file.size, loaded])


def reads_then_marks(call):
    yield Message("begun")
    with call.file as file:
        size = len(file.read())
    Path(call.request).touch()
    yield Message(size)


def is_pipe(descriptor):
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def ask(child, name, request=None, **more):
    """The fields of each message that a function of this file yields in the child."""
    return child.call(f"{HERE}:{name}", request, lambda message: message.fields, **more)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def eventually(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def framed(header: bytes) -> bytes:
    """A message with that header and no arrays."""
    return PREFIX.pack(ITEM, len(header)) + header
