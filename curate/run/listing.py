"""Listing: a folder, a glob, a URI of any fsspec store or a manifest becomes a stream of entries.

An entry is a dict with `uri` (canonical: absolute path, or the store's URI) and the manifest's extra columns.
Nothing is held: ten million entries pass through in chunks. Folders are read by file ending; what is left out
by its name is counted, never silently. Links to folders are not followed (a loop would never end), links to
files are.
"""

from __future__ import annotations

import glob
import json
import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from curate.errors import UserError
from curate.storage import filesystem, is_local, local_path

VIDEO = (
    *(".264", ".265", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m4v"),
    *(".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
IMAGE = (".jpeg", ".jpg", ".png", ".webp")
MANIFEST = (".parquet", ".csv", ".jsonl", ".ndjson")
CHUNK = 4096


@dataclass
class Listing:
    """The entries of several inputs, and the count of what was left out and why."""

    inputs: tuple[str, ...]
    extensions: tuple[str, ...] | None = None
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> files

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for text in self.inputs:
            yield from self._entries(text)

    def check(self) -> None:
        """Raises UserError for an input that is not there, before any work starts."""
        if not self.inputs:
            raise UserError("no input: give --input FOLDER (or `input:` in the recipe)")
        for text in self.inputs:
            if text.lower().endswith(".json"):
                raise UserError(f"{text}: a manifest is .jsonl (one JSON object a line), .csv or .parquet")
            if is_manifest(text):
                if not _exists(text):
                    raise UserError(f"no such manifest: {text}")
            elif _is_glob(text):
                if next(iter(_expand(text)), None) is None:
                    raise UserError(f"nothing matches {text}")
            elif is_local(text):
                path = local_path(text)
                if not os.path.lexists(path):
                    raise UserError(f"no such input: {text}")
                if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
                    raise UserError(f"can't read the folder {text}: permission denied")
            elif not _exists(text):
                raise UserError(f"no such input: {text}")

    def _entries(self, text: str) -> Iterator[dict[str, Any]]:
        if is_manifest(text):
            yield from _manifest(text)
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


def _exists(text: str) -> bool:
    fs, path = filesystem(text)
    try:
        return fs.exists(path)
    except Exception as error:  # every store has its own exceptions: no credentials, no network, no bucket
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"can't reach {text}: {said}") from error


def is_manifest(text: str) -> bool:
    return text.lower().endswith(MANIFEST)


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


def _manifest(text: str) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet, CSV or JSONL file; the column `uri` (or path, file, video, url) names the source.

    Relative names are taken from the manifest's own folder.
    """
    folder = text.rsplit("/", 1)[0] if "/" in text else "."
    for number, row in enumerate(_manifest_rows(text), 1):
        column = next((c for c in ("uri", "path", "file", "video", "url") if c in row), None)
        if column is None:
            raise UserError(f"{text}: row {number} has no column `uri` (or path, file, video, url), only {list(row)}")
        name = row.pop(column)
        if not isinstance(name, str) or not name:
            raise UserError(f"{text}: row {number}: {column} is {name!r}, expected a path or URI")
        yield {**row, "uri": canonical(name, folder)}


def canonical(name: str, folder: str) -> str:
    """The one spelling of a source's name: the absolute path, or the URI as it is."""
    if not is_local(name):
        return name
    if name.startswith(("file://", "~", "/")):
        return spelled(local_path(name))
    return spelled(os.path.abspath(os.path.join(local_path(folder), name))) if is_local(folder) else f"{folder}/{name}"


def spelled(path: str) -> str:
    """A local path as text that every table can hold; a name that is not UTF-8 becomes a file:// URI."""
    try:
        path.encode()
        return path
    except UnicodeEncodeError:
        return "file://" + urllib.parse.quote(os.fsencode(path))


def _manifest_rows(text: str) -> Iterator[dict[str, Any]]:
    fs, path = filesystem(text)
    try:
        with fs.open(path, "rb") as file:
            if text.lower().endswith(".parquet"):
                import pyarrow.parquet as pq

                for batch in pq.ParquetFile(file).iter_batches(CHUNK):
                    yield from batch.to_pylist()
            elif text.lower().endswith(".csv"):
                import pyarrow.csv as csv

                for batch in csv.open_csv(file, read_options=csv.ReadOptions(block_size=1 << 20)):
                    yield from batch.to_pylist()
            else:
                yield from _json_rows(text, file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"can't read the manifest {text}: {str(error).splitlines()[0]}") from error


def _json_rows(text: str, file: Any) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{text}:{number}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{text}:{number}: expected an object, got {type(row).__name__}")
        yield row
