"""What the parent and the decoder's child say to each other when the pixels of a window are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.decode.messages import JsonRequest, Message
from stages.frames import Box
from stages.windows.shared_pixels import Room
from stages.windows.window import Window


@dataclass(frozen=True)
class ReadRequest(JsonRequest):
    """A window, and the place in shared memory for its pixels; None: they are sent back."""

    window: Window
    room: Room | None
    threads: int = 1


@dataclass(frozen=True)
class WindowAnswer:
    """The PTS of a window's frames, its crop box, and its pixels unless they are in shared memory."""

    pts: list[int]
    crop: Box
    video: np.ndarray | None  # (frames, height, width, 3) uint8 RGB

    def to_message(self) -> Message:
        return Message({"pts": self.pts, "crop": self.crop}, [] if self.video is None else [self.video])


def parse_answer(message: Message, window: Window) -> WindowAnswer:
    """Raises ValueError for anything but an answer about that window."""
    match message.fields:
        case {"pts": list(pts), "crop": [int(x), int(y), int(w), int(h)]}:
            if len(pts) == window.frames and all(type(one) is int for one in pts):
                shapes = [array.shape for array in message.arrays]
                if shapes in ([], [window.shape]):
                    return WindowAnswer(pts, (x, y, w, h), message.arrays[0] if shapes else None)
    raise ValueError(f"not the {window.frames} frames of the window")
