"""What the parent and the decoder's child say to each other when frames of known clips are fetched."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from fractions import Fraction

from stages.decode.messages import JsonRequest, Message, pictures_of
from stages.decode.rendering import STANDARD, Rendering
from stages.frames import FrameRequest, Picture


@dataclass(frozen=True)
class ClipSpan:
    """A clip in its source: frames with start_pts <= pts < end_pts, in ticks of `time_base` seconds."""

    clip_id: str
    start_pts: int
    end_pts: int
    time_base: Fraction

    def place(self, share: float) -> int:
        """The PTS at a share of the clip's length, never after its last tick."""
        ticks = int(share * (self.end_pts - self.start_pts))
        return min(self.start_pts + max(0, ticks), max(self.start_pts, self.end_pts - 1))


@dataclass(frozen=True)
class FetchRequest(JsonRequest):
    """The clips of one source and the frames wanted of each.

    `size` is what the file had when it was scanned, bytes, None where nobody knows.
    """

    clips: list[ClipSpan]
    wants: tuple[FrameRequest, ...]
    size: int | None = None
    threads: int = 1
    rendering: Rendering = STANDARD


@dataclass(frozen=True)
class ClipFrames:
    """The answer for one clip: the pictures of each request, or the reason why there are none."""

    clip_id: str
    pictures: list[list[Picture]] | str

    def to_message(self) -> Message:
        if isinstance(self.pictures, str):
            return Message({"clip_id": self.clip_id, "reason": self.pictures})
        seconds = [[at for at, _ in some] for some in self.pictures]
        arrays = [picture for some in self.pictures for _, picture in some]
        return Message({"clip_id": self.clip_id, "seconds": seconds}, arrays)


@dataclass(frozen=True)
class FetchCost:
    """The last answer: frames decoded, those on the way to the wanted ones among them, and CPU seconds."""

    decoded: int
    cpu_seconds: float

    def to_message(self) -> Message:
        return Message({"decoded": self.decoded, "cpu_seconds": self.cpu_seconds})


def parse_answer(message: Message, clips: Container[str], wants: tuple[FrameRequest, ...]) -> ClipFrames | FetchCost:
    """An answer about one of `clips` (by id) or the last one. Raises ValueError for anything else."""
    match message.fields:
        case {"clip_id": str(clip_id), "reason": str(reason)} if clip_id in clips:
            return ClipFrames(clip_id, reason[:300])
        case {"clip_id": str(clip_id), "seconds": seconds} if clip_id in clips:
            return ClipFrames(clip_id, pictures_of(seconds, message.arrays, wants))
        case {"decoded": int(decoded), "cpu_seconds": float(spent)}:
            return FetchCost(decoded, spent)
    raise ValueError("neither frames of a clip that was asked for nor the cost of all")
