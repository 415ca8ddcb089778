"""Listing: a folder, a glob, a URI of any fsspec store or a manifest becomes a stream of entries.

An entry is a dict with `uri` (canonical: absolute path, or the store's URI) and the manifest's extra columns.
Nothing is held: ten million entries pass through in chunks. Folders are read by file ending; what is left out
by its name is counted, never silently. Links to folders are not followed (a loop would never end), links to
files are.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from curate.errors import UserError
from curate.run.locations import spelled
from curate.run.manifests.manifest import Manifest, is_manifest, join_types
from curate.storage import filesystem, is_local, local_path
from stages.decode.reading import reason_of

VIDEO = (
    *(".264", ".265", ".3gp", ".apng", ".asf", ".avi", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc", ".ivf"),
    *(".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
IMAGE = (".jpeg", ".jpg", ".png", ".webp")


@dataclass
class Listing:
    """The entries of several inputs, and the count of what was left out and why.

    `types` are the columns of `sources` that manifests bring. `read_columns` and `join_columns` find them; without them
    an entry is its `uri` alone.
    """

    inputs: tuple[str, ...]
    extensions: tuple[str, ...] | None = None
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> files
    types: Mapping[str, pa.DataType] = field(default_factory=dict)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for text in sorted(self.inputs, key=lambda text: text not in self.manifests):  # its columns are not to be lost
            yield from self._entries(text)

    def check(self) -> None:
        """Raises UserError for an input that is not there, before any work starts."""
        if not self.inputs:
            raise UserError("no input: give --input FOLDER (or `input:` in the recipe)")
        for text in self.inputs:
            if text.lower().endswith(".json"):
                raise UserError(f"{text}: a manifest is .jsonl (one JSON object a line), .csv or .parquet")
            if is_manifest(text):
                _check_there(text, "manifest")
            elif _is_glob(text):
                if next(iter(_expand(text)), None) is None:
                    raise UserError(f"nothing matches {text}")
            elif is_local(text):
                path = local_path(text)
                if not os.path.lexists(path):
                    raise UserError(f"no such input: {text}")
                if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
                    raise UserError(f"can't read the folder {text}: permission denied")
            else:
                _check_there(text, "input")

    def read_columns(self) -> None:
        """Reads every manifest once, for the types of its columns. UserError for what can't be read."""
        for manifest in self.manifests.values():
            _ = manifest.types

    def join_columns(self, stored: Mapping[str, pa.DataType]) -> Mapping[str, pa.DataType]:
        """Sets and gives `types`: they hold every cell of all manifests, and what is stored; UserError for none."""
        self.types = join_types(stored, self.manifests.values())
        return self.types

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """The manifests among the inputs."""
        return {text: Manifest(text) for text in self.inputs if is_manifest(text)}

    def _entries(self, text: str) -> Iterator[dict[str, Any]]:
        if is_manifest(text):
            yield from self.manifests[text].entries(self.types)
        elif _is_glob(text):
            for uri in _expand(text):
                yield {"uri": uri}
        elif is_local(text):
            path = os.path.abspath(local_path(text))
            for found in self._walk(path) if os.path.isdir(path) else [path]:
                yield {"uri": spelled(found)}
        else:
            yield from self._remote(text)

    def _walk(self, top: str) -> Iterator[str]:
        """Files below a folder by name order; folders that can't be read are counted."""
        folders = [top]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._leave_out(f"folder not readable ({error.strerror})")
                continue
            below = []
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    self._leave_out("link to a folder (not followed)")
                elif self._wanted(entry.name):
                    yield entry.path
            folders.extend(reversed(below))

    def _remote(self, text: str) -> Iterator[dict[str, Any]]:
        fs, path = filesystem(text)
        if fs.isfile(path):
            yield {"uri": fs.unstrip_protocol(path)}
            return
        for _, _, files in fs.walk(path, detail=True):
            for name in sorted(files):
                if name and self._wanted(name):
                    yield {"uri": fs.unstrip_protocol(files[name]["name"])}

    def _wanted(self, name: str) -> bool:
        ending = PurePosixPath(name).suffix.lower()
        if ending in (self.extensions or (*VIDEO, *IMAGE)):
            return True
        self._leave_out(f"not a media file by its name ({ending or 'no ending'})")
        return False

    def _leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def _check_there(text: str, what: str) -> None:
    """UserError for an input that is not there, or that its server does not give."""
    fs, path = filesystem(text)
    try:
        if text.startswith(("http://", "https://")):
            fs.info(path)  # raises with the answer of the server
        elif not fs.exists(path):
            raise UserError(f"no such {what}: {text}")
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"no such {what}: {reason_of(error)}") from error
    except Exception as error:  # every store has its own exceptions: no credentials, no network, no bucket
        raise UserError(f"can't reach {text}: {reason_of(error)}") from error


def _is_glob(text: str) -> bool:
    """A pattern, unless a file or folder of exactly that name is there."""
    return any(c in text for c in "*?[") and not (is_local(text) and os.path.lexists(local_path(text)))


def _expand(text: str) -> Iterator[str]:
    if is_local(text):
        for path in glob.iglob(local_path(text), recursive=True):
            if not os.path.isdir(path):
                yield spelled(os.path.abspath(path))
    else:
        fs, path = filesystem(text)
        for name in sorted(fs.glob(path)):
            yield fs.unstrip_protocol(name)
