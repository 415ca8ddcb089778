"""Listing: a folder, a glob, a URI of any fsspec store or a manifest becomes a stream of entries.

An entry is a dict with `uri` (canonical: absolute path, or the store's URI) and the manifest's extra columns.
Nothing is held: ten million entries pass through in chunks. Folders are read by file ending; what is left out
by its name is counted, never silently. Links to folders are not followed (a loop would never end), links to
files are.
"""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from curate.catalog.locations import spelled
from curate.errors import UserError
from curate.run.archive_listing import ArchiveEntries, holds_videos, list_archive
from curate.run.manifests.manifest import Manifest, is_manifest, join_types
from curate.storage import filesystem, is_local, local_path
from stages.decode.archives.uri import is_archive, member_uri, split
from stages.decode.reading import reason_of

VIDEO = (
    *(".264", ".265", ".3gp", ".apng", ".asf", ".avi", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc", ".ivf"),
    *(".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
IMAGE = (".jpeg", ".jpg", ".png", ".webp")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
ARCHIVES_AHEAD = 16  # that are listed at once: a remote one is a chain of small requests


@dataclass
class Listing:
    """The entries of several inputs, and the count of what was left out and why.

    `types` are the columns of `sources` that manifests bring. `read_columns` and `join_columns` find them; without them
    an entry is its `uri` alone. `extensions` are the endings of files, and of members of archives, that are taken.
    `remote_archives` is whether archives in stores are listed, or raise UserError.
    """

    inputs: tuple[str, ...]
    extensions: tuple[str, ...] | None = None
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> files
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    whole_archives: set[str] = field(default_factory=set)  # URIs of those that could be listed to their end
    remote_archives: bool = True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for text in sorted(self.inputs, key=lambda text: text not in self.manifests):  # its columns are not to be lost
            yield from self._opened(self._entries(text))

    def check(self) -> None:
        """Raises UserError for an input that is not there, before any work starts."""
        if not self.inputs:
            raise UserError("no input: give --input FOLDER (or `input:` in the recipe)")
        for text in self.inputs:
            if (member := split(text)) is not None:
                text = member[0]
            if text.lower().endswith(COMPRESSED):
                raise UserError(
                    f"{text}: members of a compressed tar can't be read in place: decompress it to a plain .tar "
                    "(video is compressed already)"
                )
            if text.lower().endswith(".json"):
                raise UserError(f"{text}: a manifest is .jsonl (one JSON object a line), .csv or .parquet")
            if _is_manifest(text):
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
        return {text: Manifest(text) for text in self.inputs if _is_manifest(text)}

    def _opened(self, entries: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The entries, with the members of archives in place of these, in order; archives are listed ahead."""
        waiting: deque[dict[str, Any] | Future[tuple[str, ArchiveEntries]]] = deque()
        with ThreadPoolExecutor(ARCHIVES_AHEAD, thread_name_prefix="list-archive") as pool:
            for entry in entries:
                uri = entry["uri"]
                if is_archive(uri) and not is_local(uri) and not self.remote_archives:
                    raise UserError(f"{uri} is not listed")
                waiting.append(pool.submit(self._list_archive, uri) if is_archive(uri) else entry)
                while len(waiting) > ARCHIVES_AHEAD or (waiting and isinstance(waiting[0], dict)):
                    yield from self._listed(waiting.popleft())
            while waiting:
                yield from self._listed(waiting.popleft())

    def _list_archive(self, uri: str) -> tuple[str, ArchiveEntries]:
        return uri, list_archive(uri, self._member_reason)

    def _listed(self, found: dict[str, Any] | Future[tuple[str, ArchiveEntries]]) -> Iterator[dict[str, Any]]:
        if isinstance(found, dict):
            yield found
            return
        uri, archive = found.result()
        yield from archive.entries
        if archive.whole:
            self.whole_archives.add(uri)
        for reason, number in archive.left_out.items():
            self.left_out[reason] = self.left_out.get(reason, 0) + number

    def _entries(self, text: str) -> Iterator[dict[str, Any]]:
        if (member := split(text)) is not None:
            archive, name = member
            yield {"uri": member_uri(spelled(local_path(archive)) if is_local(archive) else archive, name)}
        elif text in self.manifests:
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
        """Of a file of a folder: it is a media file or an archive, or is counted."""
        if is_archive(name) and (self.extensions is None or name.lower().endswith(self.extensions)):
            return True
        reason = self._member_reason(name)
        if reason is not None:
            self._leave_out(reason)
        return reason is None

    def _member_reason(self, name: str) -> str | None:
        """Why a name is not that of a media file that is wanted; None where it is."""
        if name.lower().endswith(COMPRESSED):
            return "compressed tar: decompress it to a plain .tar"
        ending = PurePosixPath(name).suffix.lower()
        wanted = tuple(one for one in self.extensions or () if not is_archive(one)) or (*VIDEO, *IMAGE)
        return None if ending in wanted else f"not a media file by its name ({ending or 'no ending'})"

    def _leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def nothing_found(listing: Listing) -> str:
    """The error for inputs in which no source is, with what was left out of them."""
    left_out = [f"left out: {number:,} {reason}" for reason, number in sorted(listing.left_out.items())]
    return "; ".join([f"no videos found in {', '.join(listing.inputs)}", *left_out])


def _is_manifest(text: str) -> bool:
    """A Parquet file with a column of videos is an archive of these, as are those that a pattern names."""
    if text.lower().endswith(".parquet"):
        return not _is_glob(text) and not holds_videos(text)
    return is_manifest(text) and split(text) is None


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
