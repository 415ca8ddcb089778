"""Answers kept the moment they arrive, until their rows are committed: a killed run pays for none twice.

One small object for each clip, CATALOG/_answers/TABLE/CLIP_ID.json, with an entry for each caption and the
settings that it was asked under. Locally it is written aside, flushed and renamed; a store's put is atomic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import urllib.parse
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stages.base import SettingsError, one_line
from stages.captions.answers import Answer

FOLDER = "_answers"
ASIDE = ".part"
DELETERS = 16  # requests at a time when answers are removed from a store


class Spool:
    """Picklable until `open`; `clear` may be called on a copy in another process."""

    def __init__(self, catalog_uri: str, table: str):
        self.root = "/".join([catalog_uri.rstrip("/"), FOLDER, table])
        self._local = "://" not in catalog_uri or catalog_uri.startswith("file://")
        self._there: set[str] = set()  # clip ids; one listing at the start instead of a look for every clip
        self._lock: Any = None

    def open(self) -> None:
        """Lists what a run that was killed left. One worker at a time writes a spool. Raises SettingsError."""
        self._lock = threading.Lock()
        with self._or_stop():
            self._prepare()
            self._there = self.left_over()

    def _prepare(self) -> None:
        if self._local:
            os.makedirs(self._folder(), exist_ok=True)
            for name in self._names():
                if name.endswith(ASIDE):  # what a kill left half written
                    os.unlink(os.path.join(self._folder(), name))

    def get(self, clip_id: str) -> dict[str, Answer]:
        """The answers of a clip by key; empty where there are none, or none that can be read."""
        if clip_id not in self._there:
            return {}
        with self._or_stop():
            try:
                data = self._read(clip_id)
            except FileNotFoundError:  # cleared meanwhile
                return {}
        try:
            return {key: Answer(**answer) for key, answer in json.loads(data).items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def put(self, clip_id: str, answers: dict[str, Answer]) -> None:
        """Returns when the answers of a clip, all of them, would survive a kill. Raises SettingsError."""
        data = json.dumps({key: dataclasses.asdict(answer) for key, answer in answers.items()}).encode()
        with self._or_stop():
            if self._local:
                self._write(clip_id, data)
            else:
                self._store().pipe_file(self._path(clip_id), data)
        with self._lock:
            self._there.add(clip_id)

    def left_over(self) -> set[str]:
        """The clips whose answers are there."""
        return {name.removesuffix(".json") for name in self._names() if name.endswith(".json")}

    def clear(self, clip_ids: Collection[str]) -> None:
        """Removes the answers of clips whose rows are committed; those that have none are no error."""
        gone = [clip_id for clip_id in self.left_over() if clip_id in clip_ids]
        if self._local:
            for clip_id in gone:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(clip_id))
            return
        store = self._store()

        def remove(clip_id: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                store.rm_file(self._path(clip_id))

        with ThreadPoolExecutor(DELETERS) as pool:
            list(pool.map(remove, gone))

    @contextlib.contextmanager
    def _or_stop(self) -> Iterator[None]:
        """To go on without keeping answers would be to pay for what a kill then loses."""
        try:
            yield
        except Exception as error:  # each store has its own exceptions
            raise SettingsError(f"answers can't be kept in {self.root}: {one_line(error)[:200]}") from error

    def _path(self, clip_id: str) -> str:
        return f"{self._folder()}/{clip_id}.json"

    def _folder(self) -> str:
        if not self._local:
            import fsspec

            return fsspec.core.strip_protocol(self.root)
        if self.root.startswith("file://"):
            return os.fsdecode(urllib.parse.unquote_to_bytes(self.root.removeprefix("file://")))
        return os.path.abspath(os.path.expanduser(self.root))

    def _store(self) -> Any:
        import fsspec

        return fsspec.core.url_to_fs(self.root, use_listings_cache=False)[0]

    def _names(self) -> list[str]:
        try:
            if self._local:
                return os.listdir(self._folder())
            return [path.rpartition("/")[2] for path in self._store().find(self._folder())]
        except FileNotFoundError:
            return []

    def _read(self, clip_id: str) -> bytes:
        if not self._local:
            return self._store().cat_file(self._path(clip_id))
        with open(self._path(clip_id), "rb") as file:
            return file.read()

    def _write(self, clip_id: str, data: bytes) -> None:
        path = self._path(clip_id)
        with open(path + ASIDE, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ASIDE, path)
        folder = os.open(self._folder(), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
