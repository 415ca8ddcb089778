"""The folder that an export fills: it belongs to one export, and each of its files is whole or absent."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from curate.errors import UserError
from curate.storage import filesystem
from stages.decode.reading import reason_of
from stages.shards.folder import PART, LocalFolder, shard_folder

MARKER = "export.json"  # says what the folder holds


class ExportFolder:
    """A local folder or one of a store. A context manager, which holds the folder against other exports of this
    machine and removes what is half-written: at its end its own, at its start what a killed export left.

    `about` says what is exported and how. Raises UserError for a folder that holds something else.
    """

    def __init__(self, uri: str, about: Mapping[str, Any]):
        self.uri, self.about = uri, dict(about)
        self.fs, self.path = filesystem(uri)
        self._files = shard_folder(uri)
        self._lock: int | None = None
        self._parts: set[str] = set()  # temporary files that are neither published nor dropped

    def __enter__(self) -> ExportFolder:
        try:
            with self.writing():
                if isinstance(self._files, LocalFolder):
                    os.makedirs(self.path, exist_ok=True)
                    self._take(self.path)
                self._claim(self.names())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes what was neither published nor dropped, and lets other exports in."""
        for part in list(self._parts):
            self.drop(part)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def names(self) -> set[str]:
        """The files in the folder, hidden ones left out."""
        try:
            found = self.fs.ls(self.path, detail=False)
        except FileNotFoundError:
            return set()
        names = {posixpath.basename(path.rstrip("/")) for path in found if path.rstrip("/") != self.path.rstrip("/")}
        return {name for name in names if name and not name.startswith(".")}

    def read(self, name: str) -> bytes:
        return self.fs.cat_file(posixpath.join(self.path, name))

    def write(self, name: str, text: str) -> None:
        """A file of this text, in place of what was there."""
        part = self.temporary()
        with self.writing():
            with open(part, "x", encoding="utf-8") as file:
                file.write(text)
            self.publish(part, name)

    def remove(self, name: str) -> None:
        with self.writing():
            self.fs.rm_file(posixpath.join(self.path, name))

    def temporary(self) -> str:
        """The path of a file of this machine to write, and then to `publish` or `drop`."""
        with self.writing():
            part = self._files.temporary()
        self._parts.add(part)
        return part

    def publish(self, part: str, name: str) -> None:
        """Makes a written file visible under a name."""
        with self.writing():
            self._files.publish(part, name)
        self._parts.discard(part)

    def drop(self, part: str) -> None:
        """Removes a temporary file, if it was written."""
        with suppress(OSError):
            os.unlink(part)
        self._parts.discard(part)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What a disk or a store raises inside becomes a UserError."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the clients of stores raise what they like
            raise UserError(f"can't write to {self.uri}: {reason_of(error)}") from error

    def _take(self, path: str) -> None:
        self._lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            import fcntl

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks on this system
            return
        except BlockingIOError:
            raise UserError(f"another export is writing to {self.uri}: wait for it, or give another folder") from None
        except OSError:  # nor on this file system
            return
        for name in os.listdir(path):
            if name.startswith(".") and name.endswith(PART):
                with suppress(OSError):
                    os.unlink(os.path.join(path, name))

    def _claim(self, names: set[str]) -> None:
        """Writes the marker into an empty folder; raises UserError where it is not empty and not this export's."""
        if MARKER not in names:
            if names:
                raise UserError(
                    f"{self.uri} is not empty and holds no export (but {min(names)!r}): give a new or empty folder"
                )
            self.write(MARKER, json.dumps(self.about, indent=2) + "\n")
            return
        try:
            there = json.loads(self.read(MARKER))
            told = {**there}
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.uri}/{MARKER} is damaged ({error}): give a new or empty folder") from error
        for key in [*self.about, *told]:
            if told.get(key) != self.about.get(key):
                was, now = (_said(each.get(key)) for each in (told, self.about))
                raise UserError(
                    f"{self.uri} holds another export, of {key} {was} where this one has {now}: give another folder"
                )


def _said(value: Any) -> str:
    return "none" if value is None else f"{value}"
