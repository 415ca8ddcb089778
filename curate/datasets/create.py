"""`clipmill dataset create`: a SQL selection of encoded clips, frozen with weights, contract and counts.

No shard is rewritten: a dataset is a folder of small files that say which bytes of which shards to read.
"""

from __future__ import annotations

import datetime
import posixpath
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.datasets.files import KIND, refuse_taken, write_dataset
from curate.datasets.index import make_index, text_fields
from curate.datasets.select import DatasetSelection
from curate.errors import DamagedError, UserError
from curate.shards.changed import find_changed
from curate.shards.inventory import files_of
from curate.shards.kept import noted
from curate.storage import is_local, join
from stages.encode.columns import DEFAULT_CONDITIONS
from stages.shards.contract import Contract
from stages.shards.format import ShardError, read_empty

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
T = TypeVar("T")


def run_dataset_create(
    name: str,
    catalog: str,
    select: str,
    weight: str | None = None,
    output: str = "datasets",
    conditions: Sequence[str] | None = None,
    table: str = "latents",
) -> int:
    """Makes the folder OUTPUT/NAME, whole or not at all, prints what is in it, and returns the exit code 0.

    `conditions` are the numeric columns of `clips` that condition the network (None: those of DEFAULT_CONDITIONS that
    there are and that tell samples apart), `table` is the table of the stage that made the latents. UserError for what
    the user can fix, DamagedError for shards that are not what the catalog says.
    """
    folder = Path(output) / name
    if not NAME.fullmatch(name):
        raise UserError(f"a dataset's name is letters, digits, '-', '_' and '.', not {name!r}")
    if not is_local(output):
        raise UserError(f"-o {output}: the folder is made on this machine; copy it where you like afterwards")
    refuse_taken(folder)
    opened = Catalog.open(catalog)
    versions = opened.snapshot()
    with connect(opened, versions) as sql, ExitStack() as stack:
        selection = DatasetSelection(sql, select, table)
        contract = selection.contract()
        changed = find_changed(sql, table, "SELECT clip_id FROM selected")
        shards = selection.shards()
        stack.enter_context(noted(opened, folder, list(shards)))
        _check_sizes(opened, table, shards)
        first = join(opened.path if is_local(opened.uri) else opened.uri, next(iter(shards)))
        there = {column.lower() for column in selection.all_columns()}
        wanted = [name for name in DEFAULT_CONDITIONS if name in there] if conditions is None else conditions
        names = tuple(dict.fromkeys(wanted))
        samples = selection.samples(weight, names)
        same = [name for name in names if _is_constant(samples[name])]
        if conditions is None:
            names = tuple(name for name in names if name not in same)
            samples = samples.drop_columns(same)
        index, dtypes, paths = make_index(opened, samples, shards, contract)
        text = {field: about for field, about in text_fields(contract).items() if field in dtypes}
        about = {
            "kind": KIND,
            "name": name,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "root": opened.uri,
            "select": select,
            "weight": weight,
            "table": table,
            "versions": versions,
            "contract": contract.to_dict(),
            "digest": contract.digest,
            "fields": dtypes,
            "text": text,
            "conditions": list(names),
            "buckets": _buckets(index, contract),
            "samples": index.num_rows,
            "changed": changed.parts if changed is not None else {},
            "seconds": round(float(np.sum(index["seconds"].to_numpy())), 3),
            "shards": [{"path": path, "bytes": shards[path]["bytes"], "hash": shards[path]["hash"]} for path in paths],
        }
        write_dataset(folder, about, index, _read(read_empty, first) if text else {})
    if changed is not None:
        print(f"note: {changed.line(opened)}; this dataset holds them as they were", file=sys.stderr)
    if selection.missing:
        left_out = f"{selection.missing:,} of {selection.chosen:,} selected clips have no latents and are left out"
        print(f"note: {left_out} (run the recipe that encodes them, then make another dataset)", file=sys.stderr)
    print(_summary(folder, about))
    print(f"conditions: {', '.join(names) or 'none'}" + _left_out(same, chosen=conditions is not None))
    return 0


def _check_sizes(catalog: Catalog, table: str, shards: Mapping[str, Mapping[str, Any]]) -> None:
    """DamagedError for shards that are missing or have another size; `clipmill verify` checks their content."""
    there = files_of(catalog, table)
    for path, about in shards.items():
        size = there.get(posixpath.join(catalog.path, path))
        if size != about["bytes"]:
            what = "is missing" if size is None else f"has {size:,} bytes, not {about['bytes']:,}"
            raise DamagedError(f"the shard {path} {what} (`clipmill verify` lists all that are missing or damaged)")


def _is_constant(values: pa.ChunkedArray) -> bool:
    """Whether a condition says nothing: unknown for every sample, or one value for all."""
    found = pc.min_max(values.filter(pc.is_finite(values)))
    return found["min"] == found["max"] or not found["min"].is_valid


def _read(reader: Callable[..., T], *arguments: object) -> T:
    """What `reader` returns, with damage of a shard as DamagedError."""
    try:
        return reader(*arguments)
    except ShardError as error:
        raise DamagedError(f"{error} (`clipmill verify` lists the shards that are missing or damaged)") from error


def _buckets(index: pa.Table, contract: Contract) -> dict[str, dict[str, Any]]:
    """Number of samples and shape of a latent by bucket, in the order of the index, which is that of their names."""
    counts = sorted((row["values"], row["counts"]) for row in index["bucket"].value_counts().to_pylist())
    return {name: {"samples": count, "latent": list(contract.latent_shape(name))} for name, count in counts}


def _left_out(same: Sequence[str], chosen: bool) -> str:
    """What is said of conditions that are the same for every sample: those that were asked for are kept."""
    if not same:
        return ""
    return f" ({', '.join(same)}: the same or unknown for every sample, {'kept' if chosen else 'left out'})"


def _summary(folder: Path, about: Mapping[str, Any]) -> str:
    buckets = ", ".join(f"{name} ({bucket['samples']:,})" for name, bucket in about["buckets"].items())
    return (
        f"{folder}: {about['samples']:,} samples, {about['seconds'] / 60:,.1f} minutes of video, in "
        f"{len(about['shards']):,} shards; buckets {buckets}; contract {about['digest'][:12]}"
    )
