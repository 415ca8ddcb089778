"""Lists archives: each film inside a tar or zip, or row of a Parquet file, with what the archive says of it.

Members belong together as in WebDataset: KEY.mp4, KEY.json and KEY.txt; KEY ends at the first dot of the base name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stages.decode.archives.files import OpenFile, open_file
from stages.decode.archives.index import Index
from stages.decode.archives.members import index, parquet_rows
from stages.decode.archives.uri import is_archive, member_uri
from stages.frames import SourceError
from stages.unit import Place

PLACE = "\0place"  # of an entry: its Place; no manifest has a column of this name
SAID = (".json", ".txt")  # endings of members that say something of a film; the JSON's caption comes first
MOST_KEYS = 200  # of a JSON object; one with more becomes one column, `json`
TEXT = "txt"  # the column of KEY.txt; it is the `caption` too where the JSON has none
NESTED = "archive inside an archive: unpack it"
ALONE = "JSON or text in an archive without a film of the same name"
NO_VIDEOS = "Parquet file without a column of videos (a manifest is an --input of its own)"
FORK = "macOS resource fork inside an archive (._NAME)"
BROKEN = "JSON in an archive that is broken, or no object (its film has no columns)"
NOT_TEXT = "text in an archive that is not UTF-8 (its film has no text)"

Entry = dict[str, Any]


@dataclass
class ArchiveEntries:
    """The entries of one archive, and the count of what was left out of it, by reason.

    An archive that can't be listed, or not to its end, is an entry itself, so that it fails with the reason; another
    is `whole`, so that an earlier failure is forgotten.
    """

    entries: Iterable[Entry]
    left_out: Counter[str] = field(default_factory=Counter)
    whole: bool = True


def list_archive(uri: str, leave_out: Callable[[str], str | None]) -> ArchiveEntries:
    """The entries of a local or remote archive. `leave_out` says why a name is none of a film, None where it is one."""
    try:
        with open_file(uri) as file:
            if uri.lower().endswith(".parquet"):
                return _parquet(uri, file)
            return _members(uri, index(file, uri, _is_said), leave_out)
    except SourceError:
        return ArchiveEntries([{"uri": uri}], whole=False)


def holds_videos(uri: str) -> bool:
    """Whether a Parquet file has a column of videos; if not, or if it can't be read, it is a manifest."""
    try:
        with open_file(uri) as file:
            return parquet_rows(file, uri).videos is not None
    except SourceError:
        return False


def _members(uri: str, found: Index, leave_out: Callable[[str], str | None]) -> ArchiveEntries:
    films = []
    out = found.left_out
    for member in found.members.values():
        if _is_said(member.name):
            continue
        if member.name.rpartition("/")[2].startswith("._"):
            reason: str | None = FORK
        else:
            reason = NESTED if is_archive(member.name) else leave_out(member.name)
        if reason is None:
            films.append(member)
        else:
            out[reason] += 1
    said = _Said(found.texts, out)
    entries: list[Entry] = []
    for film in films:
        in_place = uri.lower().endswith(".tar") and film.refusal is None
        place = Place(film.offset, film.length) if in_place else Place()
        entries.append(said.of(film.name) | {"uri": member_uri(uri, film.name), PLACE: place})
    said.count_rest()
    fails_itself = any(film.name == found.cut_off for film in films)
    whole = found.fault is None and (found.cut_off is None or fails_itself)
    if not whole:
        entries.append({"uri": uri})
    elif not found.members:
        out["empty archive"] += 1
    return ArchiveEntries(entries, out, whole)


class _Said:
    """What JSON and text members say, by the name or key that they share with films."""

    def __init__(self, texts: Mapping[str, bytes], left_out: Counter[str]):
        self._texts, self._left_out = texts, left_out
        self._parsed: dict[str, Entry] = {}  # by name of the member

    def of(self, film: str) -> Entry:
        """The columns of a film: of KEY.json and KEY.txt, or of those that have its whole name but for the ending."""
        folder, slash, base = film.rpartition("/")
        stems = (folder + slash + base.rpartition(".")[0], key(film))
        columns: Entry = {}
        for ending in SAID:
            if name := next((stem + ending for stem in stems if stem + ending in self._texts), None):
                if name not in self._parsed:
                    self._parsed[name] = self._parse(name)
                columns = self._parsed[name] | columns
        if "uri" in columns:
            columns["manifest_uri"] = columns.pop("uri")
        return columns

    def count_rest(self) -> None:
        if alone := len(self._texts.keys() - self._parsed.keys()):
            self._left_out[ALONE] += alone

    def _parse(self, name: str) -> Entry:
        try:
            text = self._texts[name].decode("utf-8-sig")
        except UnicodeDecodeError:
            self._left_out[NOT_TEXT] += 1
            return {}
        if not name.endswith(".json"):
            return {TEXT: text.strip(), "caption": text.strip()}
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self._left_out[BROKEN] += 1
            return {}
        return found if len(found) <= MOST_KEYS else {"json": text}


def key(name: str) -> str:
    """The key of a member as WebDataset has it: its name up to the first dot of the base name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _is_said(name: str) -> bool:
    return name.endswith(SAID)


def _parquet(uri: str, file: OpenFile) -> ArchiveEntries:
    if parquet_rows(file, uri).videos is None:
        return ArchiveEntries([], Counter({NO_VIDEOS: 1}))
    return ArchiveEntries(_rows(uri))


def _rows(uri: str) -> Iterator[Entry]:
    """The rows of a Parquet file of videos. One that is damaged fails as a whole, from there on."""
    try:
        with open_file(uri) as file:
            rows = parquet_rows(file, uri)
            videos = rows.videos
            assert videos is not None
            for number, columns in enumerate(rows.others()):
                if "uri" in columns:
                    columns["manifest_uri"] = columns.pop("uri")
                place = Place(together=f"{uri}#{videos.group(number)}")
                yield columns | {"uri": member_uri(uri, f"{videos.column}/{number}"), PLACE: place}
    except SourceError:
        yield {"uri": uri}
