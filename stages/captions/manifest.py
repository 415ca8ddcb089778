"""Captions that exist already: from a column of the source's manifest, or from a sidecar file beside the source."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable
from typing import Any

from stages.base import ClipError, SettingsError
from stages.captions.answers import Answer, CaptionSource, Deadline
from stages.captions.settings import ManifestSettings
from stages.decode.sources import file_status, open_source
from stages.frames import SourceError
from stages.unit import Clip

MAX_BYTES = 2**20  # of a sidecar file


class ManifestCaptions(CaptionSource):
    """The caption of a source is the caption of each of its clips, unless `file` has one for the clip."""

    costly = False

    def __init__(self, settings: ManifestSettings):
        self.settings = settings
        self._last: tuple[str, dict[str, Any] | str | None] = ("", None)  # clips of one source come together

    def check_sources(self, columns: Collection[str], names: Iterable[str]) -> None:
        """`columns` are those of the table `sources`. Raises SettingsError for a caption column that is not there."""
        for name in names:
            column = self.column(name)
            if column is None or column in columns or self.settings.sidecar or self.settings.file:
                continue
            raise SettingsError(
                f"no manifest of these sources has a column {column!r}: name another with "
                f"`manifest: {{column: {{{name}: COLUMN}}}}`, bring one by `clipmill run ingest --input MANIFEST`, or "
                "give `manifest: {file: MANIFEST}`"
            )

    def close(self) -> None:
        self._last = ("", None)

    def column(self, name: str) -> str | None:
        """The column, or the key of a .json file, that a caption is taken from."""
        column = self.settings.column
        return column.get(name) if isinstance(column, dict) else column

    def caption(self, clip: Clip, name: str, prompt: str, deadline: Deadline) -> Answer | None:
        column = self.column(name)
        if column is None:
            return None
        text = _text(clip.source.columns.get(column), f"column {column!r} of the manifest")
        if text is None and self.settings.sidecar:
            found = self._sidecar(clip.source.uri)
            value = found.get(column) if isinstance(found, dict) else found
            text = _text(value, f"key {column!r} of the {self.settings.sidecar} file beside the source")
        return Answer(text, "manifest") if text else None

    def missing(self, name: str) -> str:
        """Why there is no caption."""
        column = self.column(name)
        if column is None:
            return f"manifest.column names no column for {name!r}"
        if self.settings.sidecar:
            ending = self.settings.sidecar
            return f"the manifest has no {column!r} for this source and no {ending} file with it beside the source"
        return f"the manifest has no {column!r} for this source; add it there, and the next run takes it"

    def _sidecar(self, uri: str) -> dict[str, Any] | str | None:
        last = self._last  # taken once: other threads may put theirs
        if last[0] != uri:
            self._last = last = (uri, read_sidecar(beside(uri, self.settings.sidecar or "")))
        return last[1]


def beside(uri: str, ending: str) -> str:
    """The URI of the file of the same name with another ending: films/a.mp4 -> films/a.txt."""
    folder, slash, name = uri.rpartition("/")
    return f"{folder}{slash}{os.path.splitext(name)[0]}{ending}"


def read_sidecar(uri: str) -> dict[str, Any] | str | None:
    """The text of a .txt file, the mapping of a .json file, None where there is no such file.

    Raises ClipError for a file that can't be read: that is not the same as none.
    """
    name = uri.rpartition("/")[2]
    try:
        if file_status(uri) is None:
            return None
        with open_source(uri) as file:
            data = file.read(MAX_BYTES + 1)
    except SourceError as error:
        raise ClipError(f"{name} beside the source: {error}") from error
    if len(data) > MAX_BYTES:
        raise ClipError(f"{name} beside the source has more than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text) if name.endswith(".json") else text
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        kind = "JSON" if name.endswith(".json") else "UTF-8 text"
        raise ClipError(f"{name} beside the source is no {kind}: {error}") from error
    if name.endswith(".json") and not isinstance(found, dict):
        raise ClipError(f"{name} beside the source must hold a JSON object")
    return found


def _text(value: Any, where: str) -> str | None:
    """A caption as stripped text; None for an empty cell, whatever a table calls empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        raise ClipError(f"{where} holds {value!r:.80}, not a text")
    return value.strip() or None
