"""The URI of a source inside an archive: the archive's own URI, `#`, and the member's name, as they are.

    films/00000.tar#000000012.mp4    s3://bucket/00000.zip#takes/a.mp4    data/train.parquet#video/17

The archive comes first, so that a prefix of the URI still names a folder or bucket. Nothing is quoted: the `#` that
counts is the first one behind `.tar`, `.zip` or `.parquet`. A row of a Parquet file is named by its column and its
number in the file, from 0.
"""

from __future__ import annotations

import os
import re
import urllib.parse

ARCHIVES = (".tar", ".zip", ".parquet")
MEMBER = r"(.*?\.(?:tar|zip|parquet))#(.+)"  # a whole URI, in any case: the archive's own, and the member's name
_MEMBER = re.compile(MEMBER, re.IGNORECASE | re.DOTALL)
_REMOTE = re.compile(r"[A-Za-z][\w+.-]*(::[A-Za-z][\w+.-]*)*://")


def split(uri: str) -> tuple[str, str] | None:
    """(URI of the archive, name of the member) of a source inside an archive; None for a file of its own."""
    found = _MEMBER.fullmatch(uri)
    return (found[1], found[2]) if found else None


def member_uri(archive: str, name: str) -> str:
    """The URI of a member, which `split` takes apart again."""
    return f"{archive}#{name}"


def file_uri(uri: str) -> str:
    """The URI of the file that holds a source: the archive's, or its own."""
    return archive[0] if (archive := split(uri)) else uri


def is_archive(uri: str) -> bool:
    """Whether a file's name ends as an archive's does."""
    return uri.lower().endswith(ARCHIVES)


def local_path(uri: str) -> str | None:
    """The path of a local file, plain or as file:// URI; None for a remote URI."""
    if uri.startswith("file://"):
        return os.fsdecode(urllib.parse.unquote_to_bytes(uri.removeprefix("file://")))
    return None if _REMOTE.match(uri) else uri


def spelled(name: str) -> str:
    """A member's name as text that every table can hold: bytes that are no UTF-8 are percent-encoded."""
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in name)
