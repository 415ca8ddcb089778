"""Writes a shard anew without some of its clips: the other samples keep their bytes, and the contract stays."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import Any

from stages.shards.contract import Contract
from stages.shards.format import JSON, members, open_file, read_empty, read_header
from stages.shards.writer import Published, ShardWriter

OWN = ("contract", "digest", "bucket", "clipmill")  # what the writer itself puts into the header
BY_CLIP = "decode_psnr"  # of the header: clip_id -> dB


def without_clips(path: str, folder: str, gone: Collection[str]) -> Published | None:
    """Publishes the shard at `path` under `folder` (of its table) without the clips `gone`; None where none is left.

    The old one stays. ShardError for a shard that can't be read, WriteError where the new one can't be written.
    """
    header = read_header(path)
    others: dict[str, Any] = {name: value for name, value in header.items() if name not in OWN}
    if BY_CLIP in others:
        others[BY_CLIP] = {clip: value for clip, value in others[BY_CLIP].items() if clip not in gone}
    contract = Contract.from_dict(header["contract"])
    with ShardWriter(folder, contract, header["bucket"], others, read_empty(path)) as writer:
        for clip, fields in groupby(_samples(path), key=lambda found: found[0]):
            if clip not in gone:
                writer.copy(clip, {field: content for _, field, content in fields})
        return writer.publish() if writer.clips else None


def infos(path: str, clips: Collection[str]) -> dict[str, dict[str, Any]]:
    """What the JSON members of clips say of them, by clip_id."""
    return {clip: json.loads(content) for clip, field, content in _samples(path, JSON) if clip in clips}


def _samples(path: str, only: str | None = None) -> Iterator[tuple[str, str, bytes]]:
    """(clip_id, field, content of its member) in the order of the tar; `only` one field is read."""
    with open_file(path) as file:
        for name, offset, length in members(file):
            clip, _, rest = name.partition(".")
            field = rest if rest == JSON else rest.removesuffix(".npy")
            if not name.startswith("__") and only in (None, field):
                file.seek(offset)
                yield clip, field, file.read(length)
