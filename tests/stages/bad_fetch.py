"""What the tests run in the child in place of `stages.decode.fetch.run`: decoders that die or hang."""

import os
import signal
import time
from pathlib import Path

from stages.decode.fetch import run


def hangs_after_one(call):
    yield next(run(call))
    time.sleep(60)


def dies_once(call):
    """One clip, then death; whole the next time."""
    mark = Path(os.readlink(f"/proc/self/fd/{call.file.local_descriptor}")).with_suffix(".died")
    for answer in run(call):
        yield answer
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def always_dies(call):
    yield next(run(call))
    os.kill(os.getpid(), signal.SIGKILL)
