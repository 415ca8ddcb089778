"""What the parent and the decoder's child say to each other when a clip is written as MP4."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from curate.exports.clip_files.mp4_writer import CRF
from stages.decode.messages import JsonRequest, Message
from stages.windows.window import Window

PIECE = 4 << 20  # bytes of a file in one message


@dataclass(frozen=True)
class ClipFileRequest(JsonRequest):
    """The window that the file shows: the whole clip, its crop and size.

    With `every` it has each frame of the source at the frame's own time, and the window's rate is only what x264 weighs
    frames by; else the frames of the window at its rate. `copy` allows a stream copy, where that is the same.
    """

    window: Window
    every: bool = True
    copy: bool = True
    crf: int = CRF
    threads: int = 1


@dataclass(frozen=True)
class ClipFile:
    """What a finished file holds. `copied`: the source's own packets, nothing was encoded anew."""

    copied: bool
    codec: str
    frames: int
    width: int
    height: int
    fps: float  # frames over seconds
    seconds: float
    bytes: int

    def to_message(self) -> Message:
        return Message(asdict(self))


def parse_answer(message: Message) -> ClipFile | np.ndarray:
    """The next bytes of the file, or, last, what it holds. Raises ValueError for anything else."""
    match message.fields, list(message.arrays):
        case None, [np.ndarray(ndim=1) as piece]:
            return piece
        case {
            "copied": bool(copied), "codec": str(codec), "frames": int(frames), "width": int(width),
            "height": int(height), "fps": float(fps), "seconds": float(seconds), "bytes": int(size),
        }, []:  # fmt: skip
            return ClipFile(copied, codec, frames, width, height, fps, seconds, size)
    raise ValueError("neither bytes of a file nor what it holds")
