"""Datasets that hold purged clips, or whose shards were written anew: each is retired, and a successor takes its place.

A retired dataset keeps the number and order of its rows, so that what a run on it has seen can still be told; of a
purged clip the row has pseudonyms alone. Nobody trains on it any more. A successor has what is left, in the new shards.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from curate.catalog.catalog import Catalog
from curate.datasets.files import ABOUT, EMPTY, INDEX, NOWHERE, Dataset, open_dataset, write_dataset
from curate.datasets.pseudonyms import pseudonym
from curate.errors import UserError
from curate.removal.plan import Plan, now
from curate.removal.texts import without_values
from curate.shards.kept import NOTES, DatasetNote, dataset_notes, note_text
from curate.storage import is_local, join
from models.files import PART, remove_unfinished, write_whole
from stages.scan.purged import digest
from stages.shards.format import read_index

ORDER = ("bucket", "shard", "weight", "seconds")  # columns of an index that say nothing of one clip alone


@dataclass(frozen=True)
class Touched:
    """A dataset that holds purged clips, or a shard that holds some. `gone` is (n,) bool, by row of its index."""

    note: DatasetNote
    dataset: Dataset
    index: pa.Table
    gone: np.ndarray


@dataclass(frozen=True)
class Unreached:
    """A dataset that a purge can't retire, and why."""

    note: DatasetNote
    why: str


def touched(catalog: Catalog, plan: Plan) -> tuple[list[Touched], list[Unreached]]:
    """The datasets that a purge concerns, and those that it can't reach or that read another catalog's shards."""
    found, unreached = [], []
    for note in dataset_notes(catalog):
        try:
            dataset = open_dataset(note.folder)
            index = parquet.read_table(dataset.folder / INDEX, page_checksum_verification=True)
        except (UserError, OSError):
            unreached.append(Unreached(note, f"is not in {note.folder} on this machine"))
            continue
        if not _is_of(dataset, catalog):  # that one was copied
            unreached.append(Unreached(note, f"reads the shards of {dataset.root}: purge that catalog too"))
            continue
        gone = _gone(index, plan)
        if gone.any() or any(shard.path in (plan.moved or {}) for shard in dataset.shards):
            found.append(Touched(note, dataset, index, gone))
    return found, unreached


def _is_of(dataset: Dataset, catalog: Catalog) -> bool:
    """Whether a dataset reads the shards of a catalog, which may have moved since it was made."""
    if dataset.root == catalog.uri:
        return True
    try:
        other = Catalog.open(dataset.root)
    except UserError:
        return True
    return is_local(other.uri) and os.path.realpath(other.uri) == os.path.realpath(catalog.uri)


def _gone(index: pa.Table, plan: Plan) -> np.ndarray:
    clips = pc.is_in(index["clip_id"], value_set=pa.array(sorted(plan.clip_ids), pa.string()))
    sources = pc.is_in(index["source_id"], value_set=pa.array(sorted(plan.source_ids), pa.string()))
    return pc.or_(clips, sources).to_numpy()


def retire_datasets(catalog: Catalog, plan: Plan) -> None:
    """Notes in the plan which clips stood where, then makes successors, then retires. Call it again after a kill."""
    found, unreached = touched(catalog, plan)
    known = {about["folder"] for about in plan.datasets}
    plan.datasets += [_about(each, plan) for each in found if str(each.dataset.folder) not in known]
    plan.done["datasets not found"] = [f"{each.note.name}, which {each.why}" for each in unreached]
    plan.save(catalog)
    for about in plan.datasets:
        _retire(catalog, plan, about)
    for note in dataset_notes(catalog):
        if any(shard in (plan.moved or {}) for shard in note.shards):  # of what is retired, or not here
            left = [shard for shard in note.shards if shard not in (plan.moved or {})]
            catalog.put_file(join(NOTES, note.path.rpartition("/")[2]), note_text(Path(note.folder), left))


def _about(each: Touched, plan: Plan) -> dict[str, Any]:
    """What the record says of a dataset: which clips, by digest, stood in which rows of its index."""
    rows = np.flatnonzero(each.gone).tolist()
    clips = each.index["clip_id"].take(pa.array(rows, pa.int64())).to_pylist()
    folder = each.dataset.folder
    left = len(each.gone) - len(rows)
    fresh = each.dataset.retired is None and left > 0
    return {
        "name": each.dataset.name, "folder": str(folder), "created": each.dataset.about["created"],
        "samples": each.dataset.samples, "digest": each.dataset.contract.digest,
        "purged": [{"row": row, "clip": digest(clip)} for row, clip in zip(rows, clips, strict=True)],
        "successor": str(folder.with_name(f"{folder.name}-{plan.removal_id[:8]}")) if fresh else None,
    }  # fmt: skip


def _retire(catalog: Catalog, plan: Plan, record: Mapping[str, Any]) -> None:
    dataset = open_dataset(record["folder"])
    for name in (ABOUT, INDEX):
        remove_unfinished(dataset.folder / name)
    index = parquet.read_table(dataset.folder / INDEX, page_checksum_verification=True)
    gone = np.zeros(index.num_rows, bool)
    gone[[each["row"] for each in record["purged"]]] = True
    if record["successor"] is not None and not Path(record["successor"]).exists():
        for left in dataset.folder.parent.glob(f".{Path(record['successor']).name}.*{PART}"):  # of a killed purge
            shutil.rmtree(left)
        _succeed(catalog, plan, dataset, index, gone, Path(record["successor"]))
    if dataset.retired is None:
        retired = {
            "at": now().isoformat(timespec="seconds"), "removal": plan.removal_id, "purged": len(record["purged"]),
            "successor": record["successor"],
        }  # fmt: skip
        about = dict(dataset.about) | {"retired": retired}
        write_whole(dataset.folder / ABOUT, _json(without_values(about, plan)))
    if _gone(index, plan).any():
        made = io.BytesIO()
        parquet.write_table(_stripped(index, gone), made, compression="zstd", write_page_checksum=True)
        write_whole(dataset.folder / INDEX, made.getvalue())


def _stripped(index: pa.Table, gone: np.ndarray) -> pa.Table:
    """The index with what decides the order of samples, and of purged rows nothing else but pseudonyms."""
    mask, columns = pa.array(gone), {}
    for name in index.column_names:
        column = index[name]
        if name in ("clip_id", "source_id"):
            hidden = [pseudonym(value) if out else value for value, out in zip(column.to_pylist(), gone, strict=True)]
            columns[name] = pa.chunked_array([pa.array(hidden, pa.string())])
        elif name in ORDER:
            columns[name] = column
        else:
            nothing: Any = NOWHERE if name.endswith("_offset") else 0 if _is_place(name) else None
            columns[name] = pc.if_else(mask, pa.scalar(nothing, column.type), column)
    return pa.table(columns)


def _is_place(name: str) -> bool:
    return name.endswith(("_length", "_xxh3", "_tokens"))


def _succeed(catalog: Catalog, plan: Plan, dataset: Dataset, index: pa.Table, gone: np.ndarray, folder: Path) -> None:
    """Writes the dataset of what is left: the same samples in the same order, in the shards that hold them now."""
    kept = index.filter(pa.array(~gone))
    numbers = np.asarray(kept["shard"])
    paths = [shard.path for shard in dataset.shards]
    files = {shard.path: {"path": shard.path, "bytes": shard.bytes, "hash": shard.hash} for shard in dataset.shards}
    for number in np.unique(numbers).tolist():
        if (made := (plan.moved or {}).get(paths[number])) is not None:
            files[paths[number]] = {"path": made["shard"], "bytes": made["bytes"], "hash": made["hash"]}
            kept = _placed(kept, numbers == number, join(catalog.uri, made["shard"]))
    there = np.unique(numbers)
    position = kept.column_names.index("shard")
    kept = kept.set_column(position, "shard", pa.array(np.searchsorted(there, numbers).astype(np.int32)))
    counts = {name: pc.sum(pc.equal(kept["bucket"], name)).as_py() for name in dataset.buckets}
    parent = {"name": dataset.name, "folder": str(dataset.folder), "created": dataset.about["created"]}
    about = dict(dataset.about) | {
        "name": folder.name, "created": now().isoformat(timespec="seconds"),
        "parent": parent | {"samples": dataset.samples, "removal": plan.removal_id}, "samples": kept.num_rows,
        "seconds": round(float(np.sum(kept["seconds"].to_numpy())), 3),
        "buckets": {n: about | {"samples": counts[n]} for n, about in dataset.about["buckets"].items() if counts[n]},
        "shards": [files[paths[number]] for number in there.tolist()],
    }  # fmt: skip
    before, after = EMPTY.split("{}")
    empty = {
        path.name.removeprefix(before).removesuffix(after): np.load(path, allow_pickle=False)
        for path in dataset.folder.glob(EMPTY.format("*"))
    }
    shards = [about["path"] for about in about["shards"]]
    catalog.put_file(join(NOTES, f"{folder.name}.json"), note_text(folder, shards))  # before it: it keeps its shards
    write_dataset(folder, without_values(about, plan), kept, empty)


def _placed(index: pa.Table, here: np.ndarray, shard: str) -> pa.Table:
    """The index with the offsets of a new shard in the rows `here`, (n,) bool."""
    found = read_index(shard)
    for field in [name.removesuffix("_offset") for name in index.column_names if name.endswith("_offset")]:
        column = f"{field}_offset"
        rows = found.filter(pc.equal(found["field"], field))
        at = pc.index_in(index["clip_id"], value_set=rows["clip_id"].combine_chunks())
        new = rows["offset"].take(at.combine_chunks())
        there = pc.and_(pa.array(here), pc.not_equal(index[column], NOWHERE))
        index = index.set_column(index.column_names.index(column), column, pc.if_else(there, new, index[column]))
    return index


def _json(about: Mapping[str, Any]) -> str:
    return json.dumps(about, indent=1, ensure_ascii=False) + "\n"
