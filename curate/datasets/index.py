"""The index of a dataset, joined from the indexes of its shards: one row for each sample, a place for each field."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.datasets.files import LATENTS, NOWHERE, NUMPY
from curate.errors import DamagedError
from curate.progress_bar import ProgressBar
from curate.storage import join
from stages.shards.contract import Contract, sizes
from stages.shards.format import INDEX, index_path

if TYPE_CHECKING:
    from curate.catalog.catalog import Catalog

READERS = 8  # indexes that are read at once: waiting for a store takes longer than the work here
PLACE = {"offset": NOWHERE, "length": 0, "xxh3": 0}  # the parts of a field's place, and their values where it is absent


@dataclass(frozen=True)
class ShardClips:
    """A shard, and the clips of it that are in the dataset."""

    path: str  # relative to the catalog
    index_hash: str
    bucket: str
    clips: pa.Array


def text_fields(contract: Contract) -> dict[str, dict[str, Any]]:
    """field -> {"column", "dim"} of the text that is encoded beside the latents, by their contract."""
    text = contract.text or {}
    return {name: {"column": column, "dim": text["dim"]} for name, column in text.get("fields", {}).items()}


def make_index(
    catalog: Catalog, samples: pa.Table, shards: Mapping[str, Mapping[str, Any]], contract: Contract
) -> tuple[pa.Table, dict[str, str], list[str]]:
    """(index, dtype by field, paths of the shards in the order of their numbers in the index).

    `samples` is the table of `DatasetSelection.samples`. The samples of a bucket are in the order of their bytes in
    its shards. Each field has the columns <field>_offset, _length and _xxh3, a text also <field>_tokens. A mask that
    is all ones is left out, since the lengths say the same. DamagedError, naming the shard, for an index that is not
    what the catalog says was written, that lacks a clip, or that contradicts the contract.
    """
    wanted = list(_by_shard(samples, shards))
    numbers = np.repeat(np.arange(len(wanted)), [len(shard.clips) for shard in wanted])
    places, dtypes = _gather(catalog, wanted, contract)
    order = np.lexsort((places["tokens_offset" if contract.codebook is not None else "mean_offset"], numbers))
    frames = np.repeat([sizes(shard.bucket)[0] for shard in wanted], [len(shard.clips) for shard in wanted])
    own = ("clip_id", "shard", "bucket", "window_fps", "weight")
    columns = {
        "clip_id": samples["clip_id"],
        "shard": pa.array(numbers.astype(np.int32)),
        "bucket": samples["bucket"],
        "weight": samples["weight"],
        "seconds": pa.array(frames / samples["window_fps"].to_numpy()),
        **{name: pa.array(values) for name, values in places.items()},
        **{name: samples[name] for name in samples.column_names if name not in own},
    }
    return pa.table(columns).take(pa.array(order)), dtypes, [shard.path for shard in wanted]


def _by_shard(samples: pa.Table, shards: Mapping[str, Mapping[str, Any]]) -> Iterator[ShardClips]:
    """One for each shard; `samples` is sorted by shard."""
    paths = samples["shard"].combine_chunks().dictionary_encode()
    clips = samples["clip_id"].combine_chunks()
    ends = np.append(np.flatnonzero(np.diff(paths.indices.to_numpy())) + 1, len(paths)).tolist()
    for begin, end in zip([0, *ends], ends, strict=False):
        path = paths[begin].as_py()
        yield ShardClips(path, shards[path]["index_hash"], shards[path]["bucket"], clips.slice(begin, end - begin))


def _gather(
    catalog: Catalog, shards: Sequence[ShardClips], contract: Contract
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(columns of the index by name, dtype by field), read from the indexes of the shards."""
    texts = text_fields(contract)
    fields = [*LATENTS, *texts, *(f"{name}_mask" for name in texts)]
    parts: list[dict[str, dict[str, Any]]] = []
    with ThreadPoolExecutor(READERS) as pool, ProgressBar("dataset create", len(shards), "shards") as progress:
        for part in pool.map(lambda shard: _places(catalog, shard, contract, fields), shards):
            parts.append(part)
            progress.update(len(parts))
    columns: dict[str, np.ndarray] = {}
    dtypes: dict[str, str] = {}
    for field in fields:
        stored = {part[field]["dtype"] for part in parts if field in part}
        if not stored:
            continue
        if len(stored) > 1:
            raise DamagedError(f"{field} is {' in some shards, in others '.join(sorted(stored))}: encode them again")
        dtypes[field] = contract.dtype if field in LATENTS else stored.pop()
        for kind, nothing in PLACE.items():
            absent = np.array(nothing, np.uint64 if kind == "xxh3" else np.int64)
            found = [part[field][kind] if field in part else np.full(len(shard.clips), absent)
                     for part, shard in zip(parts, shards, strict=True)]  # fmt: skip
            columns[f"{field}_{kind}"] = np.concatenate(found)
    for name in texts:
        if name in dtypes:
            size = texts[name]["dim"] * np.dtype(NUMPY[dtypes[name]]).itemsize
            columns[f"{name}_tokens"] = (columns[f"{name}_length"] // size).astype(np.int32)
            _drop_mask_of_ones(columns, dtypes, name)
    return columns, dtypes


def _places(
    catalog: Catalog, shard: ShardClips, contract: Contract, fields: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """field -> its dtype, and arrays of its offset, length and xxh3 by clip; only of fields that the shard has."""
    index = _read(catalog, shard)
    found: dict[str, dict[str, Any]] = {}
    for field in pc.unique(index["field"]).to_pylist():
        if field not in fields:
            continue
        rows = index.filter(pc.equal(index["field"], field))
        at = pc.index_in(shard.clips, value_set=rows["clip_id"].combine_chunks())
        if at.null_count and field in LATENTS:
            raise DamagedError(f"{at.null_count} of {len(at)} clips have no {field} in the index of {shard.path}")
        known = at.is_valid().to_numpy(zero_copy_only=False)
        rows = rows.take(at.drop_null())
        if not len(rows):
            continue
        found[field] = {"dtype": _checked_dtype(shard, rows, field, contract)}
        for kind, nothing in PLACE.items():
            values = rows[kind].to_numpy()
            found[field][kind] = np.full(len(at), nothing, values.dtype)
            found[field][kind][known] = values
    promised = "tokens" if contract.codebook is not None else "mean"
    if promised not in found:
        raise DamagedError(f"the index of {shard.path} has no {promised}, which its contract promises")
    return found


def _checked_dtype(shard: ShardClips, rows: pa.Table, field: str, contract: Contract) -> str:
    """The dtype of a field. DamagedError if it or a shape is not what the contract says."""
    dtypes = pc.unique(rows["dtype"]).to_pylist()
    shapes = rows["shape"].combine_chunks()
    ranks = pc.unique(pc.list_value_length(shapes)).to_pylist()
    values = shapes.flatten().to_numpy().reshape(len(rows), -1) if len(ranks) == 1 else np.empty((len(rows), 0))
    if field in LATENTS:
        latent = contract.latent_shape(shard.bucket)
        fits = dtypes == [NUMPY[contract.dtype]] and ranks == [len(latent)] and bool((values == latent).all())
        promised = f"{NUMPY[contract.dtype]} {latent}"
    elif field.endswith("_mask"):
        fits, promised = dtypes == ["uint8"] and ranks == [1], "uint8 (L,)"
    else:
        dim = text_fields(contract)[field]["dim"]
        fits = len(dtypes) == 1 and dtypes[0] in NUMPY and ranks == [2] and bool((values[:, 1] == dim).all())
        promised = f"(L, {dim}) of one dtype"
    if not fits:
        raise DamagedError(f"{field} in the index of {shard.path} is not {promised}, as its contract says")
    return dtypes[0]


def _read(catalog: Catalog, shard: ShardClips) -> pa.Table:
    import xxhash
    from pyarrow import parquet

    path = index_path(shard.path)
    try:
        content = catalog.fs.cat_file(join(catalog.path, path))
    except FileNotFoundError as error:
        raise DamagedError(
            f"{path} is missing from {catalog.uri}, though the catalog has its clips (`clipmill verify` lists what is "
            "missing; run the recipe that encodes with --rebuild to make it again)"
        ) from error
    if xxhash.xxh3_128_hexdigest(content) != shard.index_hash:
        raise DamagedError(f"{path} in {catalog.uri} is not what was written: it was damaged, or replaced")
    return parquet.read_table(io.BytesIO(content), columns=INDEX.names)


def _drop_mask_of_ones(columns: dict[str, np.ndarray], dtypes: dict[str, str], name: str) -> None:
    """Removes the mask of a text if every one is all ones, which its hash shows: one hash for each length."""
    import xxhash

    mask = f"{name}_mask"
    if mask not in dtypes:
        return
    lengths = columns[f"{mask}_length"]
    hashes = np.zeros(int(lengths.max()) + 1, np.uint64)
    for length in np.unique(lengths[lengths > 0]):
        hashes[length] = xxhash.xxh3_64_intdigest(bytes([1]) * int(length))
    there = columns[f"{mask}_offset"] != NOWHERE
    plain = (lengths == columns[f"{name}_tokens"]) & (hashes[lengths] == columns[f"{mask}_xxh3"])
    if (plain | ~there).all():
        del dtypes[mask]
        for kind in PLACE:
            del columns[f"{mask}_{kind}"]
