"""What the tests run in the children in place of `stages.windows.reader.read`: decoders that die, hang or dawdle."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from stages.windows.messages import ReadRequest
from stages.windows.reader import read


def window_of(call):
    return ReadRequest.from_json(call.request).window


def dies_once(call):
    """Dies in the middle of every source's first window; the next time it is whole."""
    mark = Path(window_of(call).uri).with_suffix(".died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield from read(call)


def dies_of_odd_clips(call):
    if int(window_of(call).clip_id) % 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    yield from read(call)


def hangs_in_bad_sources(call):
    window = window_of(call)
    if "bad" in window.uri and window.clip_id != "0":
        count(window)
        time.sleep(60)
    yield from read(call)


def never_ends(call):
    while True:
        call.progress(1)
        time.sleep(0.02)


def breaks(call):
    raise MemoryError("no room for\na frame")
    yield


def takes_a_while(call):
    time.sleep(0.05)
    yield from read(call)


def without_shared_memory(call):
    yield from read(replace(call, shared=None))


def hangs_for_a_minute(call):
    for _ in range(6000 if "bad" in window_of(call).uri else 0):
        call.progress(1)
        time.sleep(0.01)
    yield from read(call)


def counted(call):
    yield from read(call)
    count(window_of(call))


def count(window):
    """One more byte in the file NAME.count beside the source."""
    with open(Path(window.uri).with_suffix(".count"), "ab") as file:
        file.write(b".")
