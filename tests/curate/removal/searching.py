"""Looks for bytes in every file of folders: as they stand, and, of Parquet files, in their decoded values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.shards.format import read_index, read_sample
from tests.curate.running import ask


def files(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def holding(values: Mapping[str, bytes], *folders: Path) -> set[tuple[str, str]]:
    """(what, path) of every value that stands in a file or in its name."""
    found = set()
    for path, content in files(*folders).items():
        blobs = [path.name.encode(), content]
        if path.suffix == ".parquet":
            blobs += list(decoded(path))
        found |= {(name, str(path)) for name, value in values.items() if any(value in blob for blob in blobs)}
    return found


def decoded(path: Path) -> Iterator[bytes]:
    """Every text, byte string and list of numbers of a Parquet file."""
    waiting = [chunk for column in pq.read_table(path).columns for chunk in column.chunks]
    while waiting:
        array = waiting.pop()
        if pa.types.is_struct(array.type):
            waiting += array.flatten()
        elif pa.types.is_map(array.type):
            waiting += [array.keys, array.items]
        elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            waiting.append(array.flatten())
        elif pa.types.is_floating(array.type):
            yield np.asarray(array.drop_null()).tobytes()
        else:
            values = [value for value in array.to_pylist() if isinstance(value, str | bytes)]
            yield b"\0".join(value.encode() if isinstance(value, str) else value for value in values)


def values_of(catalog: Path, where: str) -> dict[str, bytes]:
    """What must be gone of the clips, and their sources, that a condition on clips names."""
    found: dict[str, bytes] = {}
    columns = "clip_id, source_id, c.uri, s.content_hash, caption, jpeg, embedding, shard"
    rows = ask(
        catalog,
        f"SELECT {columns} FROM clips AS c JOIN sources AS s USING (source_id) LEFT JOIN thumbnails USING (clip_id) "
        f"LEFT JOIN embeddings AS e USING (clip_id) WHERE c.clip_id IN (SELECT clip_id FROM clips WHERE {where})",
    )
    assert rows
    for clip, source, uri, content, caption, jpeg, embedding, shard in rows:
        found |= {f"id of {clip}": clip.encode(), f"caption of {clip}": caption.encode(), f"picture of {clip}": jpeg}
        found |= {f"source of {clip}": source.encode(), f"uri of {clip}": uri.encode()}
        found[f"content of {clip}"] = content.encode()
        if embedding is not None:
            found[f"embedding of {clip}"] = embedding
        if shard is not None:
            for field, values in samples(catalog, shard)[clip].items():
                if field in ("mean", "logvar"):
                    found[f"{field} of {clip}"] = values.tobytes()
    return found


def samples(catalog: Path, shard: str) -> dict[str, dict]:
    """clip_id -> fields of the samples of a shard."""
    index = read_index(str(catalog / shard)).to_pylist()
    clips = {row["clip_id"] for row in index}
    return {clip: read_sample(str(catalog / shard), [r for r in index if r["clip_id"] == clip]) for clip in clips}


def all_samples(catalog: Path) -> dict[str, dict[str, bytes | dict]]:
    """clip_id -> field -> bytes, of all clips that rows of latents name."""
    found = {}
    for (shard,) in ask(catalog, "SELECT DISTINCT shard FROM latents WHERE shard IS NOT NULL"):
        for clip, fields in samples(catalog, shard).items():
            found[clip] = {name: v if isinstance(v, dict) else v.tobytes() for name, v in fields.items()}
    return found
