"""Write a file so that readers see it whole or not at all, after a crash or a power cut too; read one that may not be
there. Local paths only."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PART = ".part"  # the end of a temporary file's name, which begins with a dot
# What fsync of a folder raises on file systems that can't do it (some FUSE and network mounts).
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives the path of a temporary file beside `path` for the caller to create and write; when the block ends, the
    file is synced to disk and renamed to `path`, in place of what was there.

    If the block raises, the temporary file is removed and `path` stays as it was. The file's permissions follow the
    umask, whoever writes it. A killed process leaves its temporary file: see `remove_unfinished`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PART}")
    mode = _usual_mode(temporary)
    try:
        yield temporary
        os.chmod(temporary, mode)  # safetensors puts a file of its own there, which others can't read
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def write_whole(path: str | Path, data: str | bytes) -> None:
    """Writes `data` to `path`, a str as UTF-8, as `whole_file` does."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def _usual_mode(path: Path) -> int:
    """The permissions that a new file of this name gets by the umask, found by creating one: to ask for the umask is
    to set it, for all threads.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        os.unlink(path)


def remove_unfinished(path: str | Path) -> None:
    """Removes what killed processes left of writing `path`. Only for the one process that may write it."""
    path = Path(path)
    unfinished = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}{re.escape(PART)}")
    for entry in path.parent.iterdir():
        if unfinished.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def read_object(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file; empty for a file that is not there or holds none."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def sync(path: str | Path) -> None:
    """Returns when a file's content, or a folder's list of names, is on disk. Does nothing for a folder on a file
    system that can't sync folders.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC or not os.path.isdir(path):
            raise
    finally:
        os.close(descriptor)
