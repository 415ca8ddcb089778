"""Members of a zip: the stored ones are read in place, the deflated ones through a temporary file within limits."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from typing import BinaryIO

from stages.decode.archives.files import OpenFile, SparseReader
from stages.decode.archives.index import TEXT_BYTES, TOO_LONG, Index, Member, Wanted
from stages.decode.archives.uri import spelled
from stages.decode.reading import reason_of
from stages.frames import SourceError

MOST_RATIO = 100  # a member that unpacks to more times its size is refused ...
MOST_BYTES = 32 << 30  # ... as is one that unpacks to more bytes
ROOM_BYTES = 1 << 30  # of the temporary folder that stay free
CHUNK = 2**20
_HEADER = struct.Struct("<4s22xHH")  # of a member: signature, bytes of its name and of its extra field
_ENCRYPTED = 0x1  # flag bit


def zip_index(file: OpenFile, wanted: Wanted) -> Index:
    """Reads the directory at the end, and the texts that are wanted."""
    index, reader = Index(), SparseReader(file)
    try:
        with zipfile.ZipFile(io.BufferedReader(reader, 1024)) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    _take(index, archive, info, wanted)
    except Exception as error:  # damaged directories make zipfile raise what it likes
        if reader.failure is not None:
            index.fault = f"reading failed: {reason_of(reader.failure)}"
        else:
            index.fault = f"no zip, or one whose end is missing: {reason_of(error)}"
    return index


def _take(index: Index, archive: zipfile.ZipFile, info: zipfile.ZipInfo, wanted: Wanted) -> None:
    name = spelled(info.filename)
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    packed = info.compress_size if deflated else None
    index.add(Member(name, info.header_offset, None, info.file_size, packed, info.CRC, _refusal(info)))
    if not wanted(name):
        return
    try:
        with archive.open(info) as stream:
            text = stream.read(TEXT_BYTES + 1)
    except Exception:  # of that member alone
        index.left_out["JSON or text in a zip that can't be unpacked"] += 1
        return
    if len(text) > TEXT_BYTES:
        index.left_out[TOO_LONG] += 1
    else:
        index.texts[name] = text


def _refusal(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "encrypted: unpack the archive with its password"
    if info.compress_type == zipfile.ZIP_STORED:
        return None
    if info.compress_type != zipfile.ZIP_DEFLATED:
        return f"compressed by zip's method {info.compress_type}: only stored and deflated members are read"
    if info.file_size > MOST_RATIO * max(1, info.compress_size):
        return (
            f"{info.compress_size} bytes of the archive would unpack to {info.file_size}: more than "
            f"{MOST_RATIO} times as many, so it is not unpacked"
        )
    if info.file_size > MOST_BYTES:
        return f"would unpack to {info.file_size} bytes, at most {MOST_BYTES} are unpacked: store it uncompressed"
    return None


def data_start(file: OpenFile, member: Member) -> int:
    """Where a member's data starts, by its own header. Raises SourceError."""
    head = file.read_at(member.offset, 4 + 22 + 4)
    if len(head) < _HEADER.size or not head.startswith(b"PK\3\4"):
        raise SourceError(f"damaged zip: no member at byte {member.offset}")
    _, name, extra = _HEADER.unpack(head)
    return member.offset + _HEADER.size + name + extra


def inflated(file: OpenFile, member: Member) -> int:
    """The descriptor of an unnamed temporary file with the member's bytes. Raises SourceError.

    It takes no more room than the archive states, which `_refusal` has limited.
    """
    if shutil.disk_usage(tempfile.gettempdir()).free < member.length + ROOM_BYTES:
        raise SourceError(f"no room to unpack {member.length} bytes in {tempfile.gettempdir()}: set TMPDIR")
    with tempfile.TemporaryFile() as unpacked:
        try:
            _inflate(file, member, unpacked)
            unpacked.flush()
        except (OSError, zlib.error) as error:
            raise SourceError(f"can't be unpacked: {reason_of(error)}") from error
        return os.dup(unpacked.fileno())


def _inflate(file: OpenFile, member: Member, to: BinaryIO) -> None:
    place, left = data_start(file, member), member.packed or 0
    decoder, written, crc32 = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    while left and not decoder.eof:
        data = file.read_at(place, min(CHUNK, left))
        if not data:
            raise SourceError(f"the archive ends within it: {left} bytes are missing")
        place, left = place + len(data), left - len(data)
        while not decoder.eof and (plain := decoder.decompress(data, CHUNK)):
            data = decoder.unconsumed_tail
            written, crc32 = written + len(plain), zlib.crc32(plain, crc32)
            if written > member.length:
                raise SourceError(f"unpacks to more than the {member.length} bytes that the archive states")
            to.write(plain)
    if written != member.length or crc32 != member.crc32:
        raise SourceError(f"damaged: unpacks to {written} bytes that are not the {member.length} it was packed from")
