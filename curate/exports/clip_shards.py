"""Shards of clips: WebDataset tars of KEY.mp4, KEY.txt and KEY.json, written by webdataset itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, BinaryIO

from curate.errors import UserError, missing_extra
from curate.exports.clip_rows import CONTENT, json_line
from curate.exports.folder import ExportFolder

_SHARD = re.compile(r"clips-(\d{6})\.tar")


class ClipShards:
    """clips-000000.tar, ... of about `most_bytes`, each whole or absent; clips-000000.jsonl says what it holds.

    The .jsonl is published first: with its tar a shard is there. A shard that is there does not change.
    """

    def __init__(self, folder: ExportFolder, most_bytes: int):
        try:
            import webdataset
        except ImportError as error:
            raise missing_extra("webdataset", "webdataset") from error
        self._tar_writer = webdataset.TarWriter
        self.folder, self.most_bytes = folder, most_bytes
        self._there: dict[str, str] = {}  # JSON by clip, as its shard has it
        names = folder.names()
        numbers = sorted(int(found[1]) for found in map(_SHARD.fullmatch, names) if found)
        for number in numbers:
            self._read(_lines_name(number), names)
        self._number = numbers[-1] + 1 if numbers else 0  # of the shard that is filled next
        self._part = ""  # of the shard that is being filled
        self._file: BinaryIO | None = None
        self._writer: Any = None
        self._lines: list[str] = []
        self._bytes = 0

    def earlier(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """What its shard says of the clip; None where no shard has it of the source as it is now."""
        if (line := self._there.get(row["clip_id"])) is None:
            return None
        said = json.loads(line)
        return said if said.get(CONTENT) == row[CONTENT] else None

    def add(self, part: str, said: dict[str, Any]) -> None:
        """Puts a finished file into the shard, and publishes the shard when it is full."""
        if self._writer is None:
            self._part = self.folder.temporary()
            self._file = open(self._part, "xb")  # noqa: SIM115 (closed by _publish)
            self._writer = self._tar_writer(self._file, encoder=False, mtime=0)
        line, clip = json_line(said), said["clip_id"]
        sample = {"__key__": clip, "mp4": Path(part).read_bytes(), "json": line.encode()}
        if said["caption"] is not None:
            sample["txt"] = said["caption"].encode()
        self._bytes += self._writer.write(sample)
        self._lines.append(line)
        self.folder.drop(part)
        if self._bytes >= self.most_bytes:
            self._publish()

    def renew(self, said: dict[str, Any]) -> bool:
        return False

    def finish(self) -> None:
        """Publishes what the last shard holds."""
        if self._writer is not None:
            self._publish()

    def _publish(self) -> None:
        assert self._writer is not None and self._file is not None
        self._writer.close()
        self._file.close()
        self.folder.write(_lines_name(self._number), "".join(f"{line}\n" for line in self._lines))
        self.folder.publish(self._part, f"clips-{self._number:06d}.tar")
        self._number += 1
        self._file = self._writer = None
        self._lines, self._bytes = [], 0

    def _read(self, name: str, names: set[str]) -> None:
        try:
            if name not in names:
                raise ValueError("it is missing")
            for line in self.folder.read(name).decode().splitlines():
                self._there[json.loads(line)["clip_id"]] = line
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.folder.uri}/{name} can't be used ({error}): give a new folder") from error


def _lines_name(number: int) -> str:
    return f"clips-{number:06d}.jsonl"
