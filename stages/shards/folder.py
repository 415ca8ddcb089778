"""Publishes the files of shards in a local folder or any store that fsspec knows, each file whole or not at all."""

from __future__ import annotations

import glob
import os
import posixpath
import tempfile
import time
import uuid
from contextlib import suppress

from models.files import sync
from stages.shards.format import ShardError

PART = ".part"  # the end of a temporary file's name, which begins with a dot
# In these an upload becomes visible only when it is complete; elsewhere it is uploaded under another name and renamed.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")

STALE_SECONDS = 24 * 3600


class WriteError(ShardError):
    """A shard could not be written or published; nothing of it is left. The next one would fail as well."""


class LocalFolder:
    """Temporary files are in the folder itself, so that a rename publishes them."""

    def __init__(self, path: str):
        self.path = path

    def temporary(self) -> str:
        """The path of a file to write, which is not there yet."""
        os.makedirs(self.path, exist_ok=True)
        return os.path.join(self.path, f".{uuid.uuid4().hex}{PART}")

    def publish(self, part: str, name: str) -> None:
        """Makes a written file visible under a name; a power cut leaves it whole or absent."""
        sync(part)
        os.replace(part, os.path.join(self.path, name))
        sync(self.path)


class RemoteFolder:
    """Temporary files are on this machine (TMPDIR) and are uploaded."""

    def __init__(self, uri: str):
        import fsspec

        self.fs, self.path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        self.whole = uri.split("://", 1)[0] in OBJECT_STORES

    def temporary(self) -> str:
        """The path of a file to write. Removes files of killed processes that nobody wrote to for a day."""
        folder = tempfile.gettempdir()
        for left in glob.glob(os.path.join(glob.escape(folder), f".clipmill-*{PART}")):
            with suppress(OSError):  # another user's, or gone by now
                if time.time() - os.stat(left).st_mtime > STALE_SECONDS:
                    os.unlink(left)
        return os.path.join(folder, f".clipmill-{uuid.uuid4().hex}{PART}")

    def publish(self, part: str, name: str) -> None:
        """Uploads a file. OSError if the stored size differs."""
        target = posixpath.join(self.path, name)
        upload = target if self.whole else posixpath.join(self.path, f".{uuid.uuid4().hex}{PART}")
        if not self.whole:
            self.fs.makedirs(self.path, exist_ok=True)
        self.fs.put_file(part, upload)
        size, there = os.path.getsize(part), self.fs.info(upload)["size"]
        if there != size:
            raise OSError(f"of {size:,} bytes {there:,} were stored")
        if upload != target:
            self.fs.mv(upload, target)
        os.unlink(part)


def shard_folder(uri: str) -> LocalFolder | RemoteFolder:
    """The LocalFolder or RemoteFolder of a path, a file:// URI or any other."""
    local = local_folder(uri)
    return RemoteFolder(uri) if local is None else LocalFolder(local)


def local_folder(uri: str) -> str | None:
    """The path of a local URI, None of any other."""
    if uri.startswith("file://"):
        import urllib.parse

        return os.fsdecode(urllib.parse.unquote_to_bytes(uri.removeprefix("file://")))
    return None if "://" in uri else os.path.expanduser(uri)
