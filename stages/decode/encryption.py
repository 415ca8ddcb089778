"""Tells encrypted video, which libav would decode to garbage or to nothing."""

from __future__ import annotations

from typing import NoReturn

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from stages.decode.reading import SafeFile
from stages.frames import SourceError

DRM_TAGS = {"encv", "drmi"}  # MP4 sample entries of video under a protection scheme
DRM_KEYS = {"enc_key_id", "ASF_Protection_Type", "ASF_Key_ID"}  # metadata that Matroska and ASF give of it
TS_PACKET = 188  # bytes
TS_HEAD = 1 << 20  # bytes of a transport stream that are looked at


def refuse_protected(container: InputContainer, stream: VideoStream) -> None:
    """Raises SourceError where the header says that the video is encrypted."""
    tag = stream.codec_context.codec_tag if stream.codec_context is not None else ""
    if tag in DRM_TAGS or DRM_KEYS & {*container.metadata, *stream.metadata}:
        _refuse()


def refuse_encrypted(packet: av.Packet) -> None:
    """Raises SourceError for a packet of MP4 that is encrypted (CENC), whatever those before it were."""
    if packet.has_sidedata("encryption_info"):
        _refuse()


def refuse_scrambled(container: InputContainer, file: SafeFile) -> None:
    """Raises SourceError for a transport stream of which most packets are scrambled (conditional access)."""
    if container.format.name != "mpegts":
        return
    file.seek(0)
    head = file.read(TS_HEAD)
    start = head.find(b"\x47")
    marks = [head[at + 3] & 0xC0 for at in range(start, len(head) - 4, TS_PACKET) if head[at] == 0x47]
    if sum(map(bool, marks)) > len(marks) / 2:
        _refuse()


def _refuse() -> NoReturn:
    raise SourceError("encrypted: the video is under copy protection (DRM), and there is no key to it")
