"""The fetched files of one domain, with the times of their fetch.

`fetched.json` may say of each file when it was fetched and with which HTTP status: {"robots.txt": {"at": "2026-01-31",
"status": 404}}. Without it a file was fetched when it was last changed, and one that is not there was not asked for;
an empty file says that the server has none.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any

from curate.catalog.rights import rights_value
from curate.errors import first_line
from curate.run.opt_outs.finding import FetchedText
from curate.storage import join

LARGEST = 4 << 20  # bytes of a file; robots.txt may be cut off at 500 KiB (RFC 9309, 2.5)
LARGEST_HEADERS = 256 << 20
ROBOTS, RSL, HEADERS, FETCHED = "robots.txt", "rsl.xml", "headers.jsonl", "fetched.json"
TDMREP = (".well-known/tdmrep.json", "tdmrep.json")
GONE = range(400, 500)  # statuses of a server that has no such file
Say = Callable[[str], None]  # is told of what can't be read


class DomainFolder:
    """The files of a domain; what can't be read counts as not fetched, and `say` is told."""

    def __init__(self, fs: Any, path: str, domain: str, say: Say):
        self.fs, self.path, self.domain, self._say = fs, path, domain, say
        self._known = self._fetches()
        self.headers: dict[str, tuple[Mapping[str, str], FetchedText]] = self._headers()

    def text(self, name: str) -> FetchedText | None:
        """A file's text; None where nothing tells whether the server has it."""
        fetch = self._known.get(name, {})
        status = fetch.get("status", 200)
        shown = f"{self.domain}/{name}"
        at = self._time(fetch.get("at"), shown)
        if status in GONE and at is not None:
            return FetchedText("", shown, at)
        content = self._read(name, LARGEST) if 200 <= status < 300 else None
        if content is None:
            return None
        return FetchedText(content[0].decode("utf-8", "replace").removeprefix("\ufeff"), shown, at or content[1])

    def complain(self, name: str, why: object) -> None:
        self._say(f"{self.domain}/{name}: {why}: it counts as not checked")

    def _read(self, name: str, largest: int) -> tuple[bytes, datetime.datetime] | None:
        """A file's bytes and the time of its last change."""
        path = join(self.path, name)
        try:
            info = self.fs.info(path)
            if info["size"] > largest:
                self.complain(name, f"larger than {largest >> 20} MB")
                return None
            changed = self.fs.modified(path)
            return self.fs.cat_file(path), changed.replace(tzinfo=changed.tzinfo or datetime.UTC)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except Exception as error:  # each store has its own exceptions
            self.complain(name, first_line(error))
            return None

    def _fetches(self) -> dict[str, dict[str, Any]]:
        found = self._read(FETCHED, LARGEST)
        if found is None:
            return {}
        try:
            fetches = json.loads(found[0])
            good = isinstance(fetches, dict) and all(
                isinstance(each, dict) and isinstance(each.get("status", 200), int) for each in fetches.values()
            )
            if good:
                return fetches
            self.complain(FETCHED, 'expected {"robots.txt": {"at": TIME, "status": 200}}')
        except (ValueError, RecursionError) as error:
            self.complain(FETCHED, f"not valid JSON ({first_line(error)})")
        return {}

    def _headers(self) -> dict[str, tuple[Mapping[str, str], FetchedText]]:
        """By URL, the header fields of the latest line about it, names in small letters."""
        found = self._read(HEADERS, LARGEST_HEADERS)
        headers: dict[str, tuple[Mapping[str, str], FetchedText]] = {}
        for number, line in enumerate(found[0].splitlines() if found else (), 1):
            if not line.strip():
                continue
            assert found is not None
            try:
                row = json.loads(line)
                fields = {str(name).lower(): _joined(value) for name, value in row["headers"].items()}
                url, at = str(row["url"]), row.get("at")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.complain(f"{HEADERS}:{number}", 'expected {"url": ..., "at": TIME, "headers": {...}}')
                continue
            shown = f"{self.domain}/{HEADERS}"
            headers[url] = fields, FetchedText("", shown, self._time(at, f"{shown}:{number}") or found[1])
        return headers

    def _time(self, at: object, where: str) -> datetime.datetime | None:
        if at is None:
            return None
        try:
            return rights_value("consent_checked", str(at))
        except ValueError:
            self._say(f"{where}: at is {at!r}, expected a date such as 2026-01-31: the time of the file counts")
            return None


def _joined(value: object) -> str:
    """Lines of one field are one list (RFC 9110, 5.3)."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
