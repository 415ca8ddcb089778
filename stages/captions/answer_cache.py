"""A cache of caption answers on disk or in a bucket: a killed run never pays twice for an answer that arrived.

An answer is written the moment it arrives and removed when its row is committed. Each clip has one small object,
CATALOG/_answers/TABLE/CLIP_ID.json, with an entry for each caption and the settings it was asked under. It appears
whole or not at all, in a local folder by models.files, in a bucket because a put is atomic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from models.files import PART, write_whole
from stages.base import SettingsError, one_line
from stages.captions.answers import Answer
from stages.shards.folder import local_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

FOLDER = "_answers"
DELETERS = 16  # requests at a time when answers are removed from a store


class AnswerCache:
    """Picklable until `open`; `clear` may be called on a copy in another process."""

    def __init__(self, catalog_uri: str, table: str):
        self.root = "/".join([catalog_uri.rstrip("/"), FOLDER, table])
        self._cached: set[str] = set()  # clip ids; one listing at the start instead of a request for every clip
        self._lock: threading.Lock | None = None

    def open(self) -> None:
        """Lists the answers of a run that was killed. One worker at a time writes a cache. Raises SettingsError."""
        self._lock = threading.Lock()
        with self._errors_stop_the_run():
            if (folder := self._local()) is not None:
                os.makedirs(folder, exist_ok=True)
                for name in os.listdir(folder):
                    if name.endswith(PART):  # half written when the run was killed
                        os.unlink(os.path.join(folder, name))
            self._cached = self.clip_ids()

    def get(self, clip_id: str) -> dict[str, Answer]:
        """The answers of a clip by key; empty where there are none, or none that can be read."""
        if clip_id not in self._cached:
            return {}
        with self._errors_stop_the_run():
            try:
                data = self._read(clip_id)
            except FileNotFoundError:  # cleared meanwhile
                return {}
        try:
            return {key: Answer(**answer) for key, answer in json.loads(data).items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def put(self, clip_id: str, answers: dict[str, Answer]) -> None:
        """Replaces the answers of a clip; on return they would survive a kill. Raises SettingsError."""
        if self._lock is None:
            raise RuntimeError("answers are put after open()")
        data = json.dumps({key: dataclasses.asdict(answer) for key, answer in answers.items()}).encode()
        with self._errors_stop_the_run():
            self._write(clip_id, data)
        with self._lock:
            self._cached.add(clip_id)

    def clip_ids(self) -> set[str]:
        """The clips that have answers in the cache."""
        return {name.removesuffix(".json") for name in self._names() if name.endswith(".json")}

    def clear(self, clip_ids: Collection[str]) -> None:
        """Removes the answers of clips whose rows are committed; clips without answers are no error."""
        store = self._store() if self._local() is None else None

        def remove(clip_id: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                if store is None:
                    os.unlink(self._path(clip_id))
                else:
                    store.rm_file(self._path(clip_id))

        with ThreadPoolExecutor(DELETERS) as pool:
            list(pool.map(remove, self.clip_ids().intersection(clip_ids)))

    @contextlib.contextmanager
    def _errors_stop_the_run(self) -> Iterator[None]:
        """To go on without a cache would be to pay for what a kill then loses."""
        try:
            yield
        except Exception as error:  # each store has its own exceptions
            raise SettingsError(f"answers can't be kept in {self.root}: {one_line(error)[:200]}") from error

    def _local(self) -> str | None:
        """The local folder; None where the catalog is in a bucket."""
        path = local_folder(self.root)
        return None if path is None else os.path.abspath(path)

    def _store(self) -> AbstractFileSystem:
        import fsspec

        return fsspec.core.url_to_fs(self.root, use_listings_cache=False)[0]

    def _folder(self) -> str:
        """The folder as the local file system or the store calls it."""
        import fsspec

        return self._local() or fsspec.core.strip_protocol(self.root)

    def _path(self, clip_id: str) -> str:
        return f"{self._folder()}/{clip_id}.json"

    def _names(self) -> list[str]:
        try:
            if (folder := self._local()) is not None:
                return os.listdir(folder)
            return [path.rpartition("/")[2] for path in self._store().find(self._folder())]
        except FileNotFoundError:
            return []

    def _read(self, clip_id: str) -> bytes:
        if self._local() is None:
            return self._store().cat_file(self._path(clip_id))
        with open(self._path(clip_id), "rb") as file:
            return file.read()

    def _write(self, clip_id: str, data: bytes) -> None:
        if self._local() is None:
            self._store().pipe_file(self._path(clip_id), data)
        else:
            write_whole(self._path(clip_id), data)
