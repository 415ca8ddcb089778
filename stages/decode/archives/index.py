"""What an archive holds: its members by name, the texts among them, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

TEXT_BYTES = 2**20  # of a JSON or text member; a larger one is left out

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}  # first bytes
DOUBLED = "member whose name comes again later in its archive (the last one counts)"
LINK = "link or device inside an archive"
TOO_LONG = f"JSON or text in an archive of more than {TEXT_BYTES} bytes"

Wanted = Callable[[str], bool]  # of a member's name: whether its text is wanted


@dataclass(frozen=True)
class Member:
    """Bytes of an archive that are a file of their own.

    `offset` is where its header starts, `start` where its data does (None: behind the header, which must be read),
    `length` the bytes it has once unpacked and `packed` those it takes, if it is compressed (deflate) with the checksum
    `crc32`. `refusal` says why it can't be read.
    """

    name: str
    offset: int
    start: int | None
    length: int
    packed: int | None = None
    crc32: int = 0
    refusal: str | None = None


@dataclass
class Index:
    """`members` are the regular files in their order; of two with one name the last. `texts` are contents by name.

    `left_out` counts what is no member, by reason; `fault` is what is wrong with the archive itself.
    `cut_off` is the member in which the archive ends.
    """

    members: dict[str, Member] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    fault: str | None = None
    cut_off: str | None = None

    def add(self, member: Member) -> None:
        if self.members.pop(member.name, None) is not None:
            self.left_out[DOUBLED] += 1
            self.texts.pop(member.name, None)
        self.members[member.name] = member


def compression(head: bytes) -> str | None:
    """By what a file is compressed as a whole, by its first bytes; None where it is not."""
    return next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), None)
