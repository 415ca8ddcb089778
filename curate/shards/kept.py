"""Shards that datasets were made of: a note in the catalog for each dataset keeps its shards from being deleted.

A dataset is never changed, and lies anywhere. So its shards stay when all their clips were encoded again, until
somebody deletes the note.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from curate.catalog.catalog import Catalog
from curate.errors import DamagedError, first_line
from curate.storage import join

NOTES = "_datasets"  # the folder in the catalog


@dataclass(frozen=True)
class DatasetNote:
    """A dataset that was made from a catalog. `path` is that of the note in the catalog's filesystem, `folder` where
    the dataset was made, `shards` are paths relative to the catalog.
    """

    path: str
    name: str
    folder: str
    shards: tuple[str, ...]


@contextmanager
def noted(catalog: Catalog, folder: Path, shards: Sequence[str]) -> Iterator[None]:
    """Notes the shards of a dataset that is made inside; the note goes again where that fails.

    A catalog that can't be written is no error, since a dataset needs no more than to read it: it is said.
    """
    name = join(NOTES, f"{folder.name}-{uuid.uuid4().hex[:8]}.json")
    try:
        catalog.put_file(name, note_text(folder, shards))
    except Exception as error:  # each store has its own exceptions
        said = f"{join(catalog.uri, NOTES)} can't be written ({first_line(error)})"
        print(f"note: {said}: a run that encodes these clips again will delete their shards", file=sys.stderr)
    try:
        yield
    except BaseException:
        with suppress(Exception):
            catalog.fs.rm_file(join(catalog.path, name))
        raise


def note_text(folder: Path, shards: Sequence[str]) -> str:
    """The content of a note."""
    return json.dumps({"name": folder.name, "folder": str(folder.absolute()), "shards": list(shards)})


def dataset_notes(catalog: Catalog) -> list[DatasetNote]:
    """The notes of a catalog, by the names of their files. DamagedError for one that can't be read."""
    try:
        paths = sorted(catalog.fs.ls(join(catalog.path, NOTES), detail=False))
    except FileNotFoundError:
        return []
    found = []
    for path in paths:
        if path.endswith(".json"):
            try:
                about = json.loads(catalog.fs.cat_file(path))
                found.append(DatasetNote(path, about["name"], about["folder"], tuple(about["shards"])))
            except (ValueError, KeyError, TypeError) as error:
                raise DamagedError(f"{path} is no note of a dataset: delete it if nobody trains on that one") from error
    return found
