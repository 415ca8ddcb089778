"""Members of a tar: ustar, GNU and pax, read by headers alone. Nothing is extracted, so a name can do no harm."""

from __future__ import annotations

import tarfile
from typing import cast

from stages.decode.archives.files import OpenFile, SparseReader
from stages.decode.archives.index import LINK, TEXT_BYTES, TOO_LONG, Index, Member, Wanted, compression
from stages.decode.archives.uri import spelled
from stages.decode.reading import reason_of

BLOCK = tarfile.BLOCKSIZE
UNENDED = "tar without an end marker, perhaps cut off (what is there was taken)"
NAME_BYTES = 100  # a longer name does not fit into the header itself


def tar_index(file: OpenFile, wanted: Wanted) -> Index:
    """Reads the headers, and the texts that are wanted. What ends the listing early becomes the index's `fault`."""
    index, end, reader = Index(), 0, SparseReader(file)
    try:
        with tarfile.open(fileobj=reader, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            for info in archive:
                if info.offset < end or info.size < 0:
                    raise tarfile.ReadError("a member that starts before the one before it ends")
                end = info.offset_data + _data_bytes(info)
                if end > file.size:
                    index.cut_off = spelled(info.name)
                _take(index, archive, info, wanted)
                end = info.offset_data + -(-_data_bytes(info) // BLOCK) * BLOCK
        index.fault = _after(reader, end)
        if index.members and file.size < end + BLOCK:
            index.left_out[UNENDED] += 1
    except Exception as error:  # damaged headers make tarfile raise what it likes
        if index.cut_off is None:
            index.fault = _fault(reader, end, error)
    return index


def check_header(file: OpenFile, offset: int, length: int, name: str) -> Member | None:
    """The member whose header was seen at `offset`; None if something else is there now."""
    try:
        info = tarfile.TarInfo.frombuf(file.read_at(offset, BLOCK), "utf-8", "surrogateescape")
    except tarfile.TarError:
        return None
    is_it = not name.isascii() or len(name) > NAME_BYTES or info.name == name
    if not info.isreg() or info.issparse() or info.size != length or not is_it:
        return None
    return Member(name, offset, offset + BLOCK, length)


def _take(index: Index, archive: tarfile.TarFile, info: tarfile.TarInfo, wanted: Wanted) -> None:
    if not info.isreg():
        if not info.isdir():
            index.left_out[LINK] += 1
        return
    name = spelled(info.name)
    refusal = "a sparse member can't be read in place: unpack the archive" if info.issparse() else None
    index.add(Member(name, info.offset_data - BLOCK, info.offset_data, info.size, refusal=refusal))
    if wanted(name):
        if info.size > TEXT_BYTES:
            index.left_out[TOO_LONG] += 1
        elif name != index.cut_off and (text := archive.extractfile(info)) is not None:
            index.texts[name] = text.read()


def _data_bytes(info: tarfile.TarInfo) -> int:
    """Bytes of a member's data in the archive: of a sparse one the parts that are no holes, of links none."""
    if info.issparse():
        parts = cast("list[tuple[int, int]]", info.sparse)  # typeshed has another type
        return sum(length for _, length in parts)
    return info.size if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES else 0


def _after(reader: SparseReader, end: int) -> str | None:
    """What is wrong with the end, where tarfile found no further header: it takes damage for the end."""
    if _block(reader, end).strip(b"\0"):
        return f"damaged at byte {end}: what follows can't be listed"
    for place in {end + 2 * BLOCK, -(-(end + 2 * BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE}:
        if _block(reader, place).strip(b"\0"):
            return f"more after its end marker, at byte {place}: join tars with `tar --concatenate`, not `cat`"
    return None


def _fault(reader: SparseReader, end: int, error: Exception) -> str:
    if reader.failure is not None:
        return f"reading failed: {reason_of(reader.failure)}"
    if end:
        return f"ends or is damaged at byte {end}: {reason_of(error)}"
    if (by := compression(_block(reader, 0))) is not None:
        return f"compressed with {by}, so its members can't be read in place: decompress it to a plain .tar"
    return f"no tar: {reason_of(error)}"


def _block(reader: SparseReader, place: int) -> bytes:
    reader.seek(place)
    return reader.read(BLOCK)
