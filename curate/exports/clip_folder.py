"""Clips as files by their ids: KEY.mp4, KEY.txt, KEY.json, metadata.jsonl over all of them, and a dataset card."""

from __future__ import annotations

import json
from typing import Any

from curate.errors import UserError
from curate.exports.clip_rows import CONTENT, json_line
from curate.exports.folder import ExportFolder

METADATA = "metadata.jsonl"  # what Hugging Face's `datasets` reads beside the files
CARD = "README.md"  # tells it which files are the data: KEY.json and KEY.txt are not
CARD_TEXT = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: ["*.mp4", "metadata.jsonl"]
---
"""


class ClipFolder:
    """The clips of a folder. KEY.json is the last file of a clip: with it the clip is there."""

    def __init__(self, folder: ExportFolder):
        self.folder = folder
        self._names = folder.names()
        self._lines: dict[str, str] = {}  # JSON by clip
        if METADATA in self._names:
            for line in folder.read(METADATA).decode().splitlines():
                self._note(METADATA, line)
        for name in sorted(self._names):  # of a killed export
            clip = name.removesuffix(".json")
            if clip != name and f"{clip}.mp4" in self._names and clip not in self._lines:
                self._note(name, folder.read(name).decode())
        self._changed = METADATA not in self._names

    def earlier(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """What was said of the clip when its file was made; None where it has no file of the source as it is now."""
        clip = row["clip_id"]
        if clip not in self._lines or not {f"{clip}.mp4", f"{clip}.json"} <= self._names:
            return None
        said = json.loads(self._lines[clip])
        return said if said.get(CONTENT) == row[CONTENT] else None

    def add(self, part: str, said: dict[str, Any]) -> None:
        """Publishes a finished file with its caption and JSON."""
        self.folder.publish(part, f"{said['clip_id']}.mp4")
        self.renew(said)

    def renew(self, said: dict[str, Any]) -> bool:
        """Writes the caption and the JSON of a clip whose file is there."""
        clip, caption = said["clip_id"], said["caption"]
        if caption is not None:
            self.folder.write(f"{clip}.txt", f"{caption}\n")
        elif f"{clip}.txt" in self._names:
            self.folder.remove(f"{clip}.txt")
        line = json_line(said)
        self.folder.write(f"{clip}.json", f"{line}\n")
        self._lines[clip], self._changed = line, True
        return True

    def finish(self) -> None:
        """Writes a line for each clip of the folder, those of exports before among them."""
        if CARD not in self._names:
            self.folder.write(CARD, CARD_TEXT)
        if self._changed:
            named = (f'{{"file_name": "{clip}.mp4", {line[1:]}\n' for clip, line in sorted(self._lines.items()))
            self.folder.write(METADATA, "".join(named))

    def _note(self, name: str, line: str) -> None:
        try:
            said = json.loads(line)
            said.pop("file_name", None)
            clip, _ = said["clip_id"], said["file"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.folder.uri}/{name} is damaged ({error}): remove it, or give a new folder"
            ) from error
        self._lines[clip] = json_line(said)
