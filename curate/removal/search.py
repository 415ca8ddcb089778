"""The proof: looks for purged ids and URIs in all that a catalog still holds, file by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from curate.catalog.catalog import Catalog
from curate.removal.datasets import touched
from curate.removal.plan import PLAN, Plan, files_of
from curate.removal.shards import indexes
from curate.removal.texts import values_in
from curate.shards.inventory import FOLDER as SHARDS

SMALL = ("_answers", "_datasets", "_lease", "_removals")


@dataclass
class Searched:
    """Files and bytes that were looked through, by what they are, and the paths of those that hold purged values."""

    files: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def note(self, what: str, path: str, size: int, holds: bool) -> None:
        self.files[what] += 1
        self.bytes[what] += size
        if holds:
            self.found.append(path)

    def to_dict(self) -> dict[str, Any]:
        return {what: {"files": self.files[what], "bytes": self.bytes[what]} for what in sorted(self.files)}


def search(catalog: Catalog, plan: Plan) -> Searched:
    """Looks through every file of every table and its log, the indexes of all shards, datasets at hand, and the rest of
    the catalog's folder. Of shards the indexes name every clip; what their tars hold is compared by `clipmill verify`.
    """
    done = Searched()
    values = pa.array(sorted(plan.clip_ids | plan.source_ids | plan.uris), pa.string())
    for name in catalog.tables():
        for path in files_of(catalog, name):
            log = "/_delta_log/" in path
            holds = _in_parquet(catalog, path, values) if path.endswith(".parquet") else _in_text(catalog, path, plan)
            done.note("logs of tables" if log else "files of tables", path, catalog.fs.size(path), holds)
    for folder in SMALL:
        for path in files_of(catalog, folder):
            if not path.endswith(PLAN):
                done.note("notes", path, catalog.fs.size(path), _in_text(catalog, path, plan))
    for shard, clips in indexes(catalog):
        done.note("indexes of shards", shard, 0, bool(clips & plan.clip_ids) or shard in (plan.moved or {}))
    left = {path.removesuffix(".tar").removesuffix(".parquet") for path in files_of(catalog, SHARDS)}
    done.found += [old for old in plan.moved or {} if any(path.endswith(old.removesuffix(".tar")) for path in left)]
    done.found += [str(each.dataset.folder) for each in touched(catalog, plan)[0] if each.gone.any()]
    return done


def _in_parquet(catalog: Catalog, path: str, values: pa.Array) -> bool:
    with catalog.fs.open(path) as file:
        opened = ParquetFile(file)
        texts = [column.path for column in opened.schema if column.physical_type == "BYTE_ARRAY"]
        chosen = [name for name in opened.schema_arrow.names if any(t.split(".")[0] == name for t in texts)]
        chosen = [name for name in chosen if _texts(opened.schema_arrow.field(name).type)]
        return any(
            pc.any(pc.is_in(column, value_set=values)).as_py()
            for batch in opened.iter_batches(columns=chosen)
            for column in _flat(batch)
        )


def _texts(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_texts(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        return _texts(kind.value_type if pa.types.is_list(kind) else kind.item_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _flat(batch: pa.RecordBatch) -> Iterator[pa.Array]:
    """The columns of texts, also those inside structs and lists."""
    waiting = list(batch.columns)
    while waiting:
        column = waiting.pop()
        if pa.types.is_struct(column.type):
            waiting += column.flatten()
        elif pa.types.is_list(column.type):
            waiting.append(column.flatten())
        elif pa.types.is_map(column.type):
            waiting += [column.keys, column.items]
        elif _texts(column.type):
            yield column.cast(pa.string())


def _in_text(catalog: Catalog, path: str, plan: Plan) -> bool:
    text = catalog.fs.cat_file(path).decode("utf-8", "replace")
    name = path.rpartition("/")[2]
    return bool(values_in(f"{name}\n{text}", plan))
