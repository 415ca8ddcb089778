"""What the tests run in the children in place of `stages.windows.reader.read`: decoders that die, hang or dawdle."""

import os
import signal
import time
from pathlib import Path

from stages.windows.reader import read


def dies_once(window, *more, progress):
    """Dies in the middle of every source's first window; the next time it is whole."""
    mark = Path(window.uri).with_suffix(".died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield from read(window, *more, progress=progress)


def dies_of_odd_clips(window, *more, progress):
    if int(window.clip_id) % 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    yield from read(window, *more, progress=progress)


def hangs_in_bad_sources(window, *more, progress):
    if "bad" in window.uri and window.clip_id != "0":
        count(window)
        time.sleep(60)
    yield from read(window, *more, progress=progress)


def never_ends(window, *more, progress):
    while True:
        progress(1)
        time.sleep(0.02)


def breaks(window, *more, progress):
    raise MemoryError("no room for\na frame")
    yield


def takes_a_while(window, *more, progress):
    time.sleep(0.05)
    yield from read(window, *more, progress=progress)


def without_shared_memory(window, room, *more, progress):
    yield from read(window, None, *more, progress=progress)


def hangs_for_a_minute(window, *more, progress):
    for _ in range(6000 if window.uri == "bad" else 0):
        progress(1)
        time.sleep(0.01)
    yield from read(window, *more, progress=progress)


def counted(window, *more, progress):
    yield from read(window, *more, progress=progress)
    count(window)


def count(window):
    """One more byte in the file NAME.count beside the source."""
    with open(Path(window.uri).with_suffix(".count"), "ab") as file:
        file.write(b".")
