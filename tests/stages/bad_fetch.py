"""What the tests run in the child in place of `stages.decode.seek_reader.fetch`: decoders that die or hang."""

import os
import signal
import time
from pathlib import Path

from stages.decode.seek_reader import fetch


def hangs_after_one(uri, clips, *more, progress):
    yield next(fetch(uri, clips, *more, progress=progress))
    time.sleep(60)


def dies_once(uri, clips, *more, progress):
    """One clip, then death; whole the next time."""
    mark = Path(uri).with_suffix(".died")
    for answer in fetch(uri, clips, *more, progress=progress):
        yield answer
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def always_dies(uri, clips, *more, progress):
    yield next(fetch(uri, clips, *more, progress=progress))
    os.kill(os.getpid(), signal.SIGKILL)
