"""A catalog with shards of random latents: clips, sources and latents as runs would have committed them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from stages.shards.contract import Contract
from stages.shards.writer import ShardWriter
from tests.catalog_rows import commit_rows

DIM = 6  # of a text vector
Z = 4  # channels
FPS = 8.0
BUCKETS = {"5x16x24": 11, "1x16x16": 6}  # bucket -> clips
HOLES = "cd" * 32  # the fingerprint of what writes masks with holes
EMPTY = np.arange(2 * DIM, dtype=np.float16).reshape(2, DIM)


def contract(dtype: str = "float16", tokens: int | None = None, text: bool = True, fingerprint: str = "ab" * 32):
    fields = {"text": "caption", "text_short": "short_caption"}
    said = {"encoder": "tiny", "fingerprint": "ef" * 32, "dim": DIM, "max_tokens": 16, "fields": fields}
    return Contract(
        vae="made up", fingerprint=fingerprint, preprocessing=1, fps=FPS, channels=Z, time_stride=4, first_frame=True,
        space_stride=8, mean=(0.5,) * Z, std=(2.0,) * Z, dtype="int32" if tokens else dtype, codebook=tokens,
        text=said if text else None,
    )  # fmt: skip


def fields_of(clip_id: str, shape: tuple[int, ...], made: Contract) -> dict[str, np.ndarray]:
    """The arrays of a clip: they follow from its id. Every third has no short text; with HOLES masks have them."""
    rng = np.random.default_rng(int(clip_id, 16))
    number = int(clip_id, 16) % 1000
    if made.codebook:
        arrays = {"tokens": rng.integers(0, made.codebook, shape).astype(np.int32)}
    else:
        stored = np.float16 if made.dtype == "float16" else np.uint16
        arrays = {}
        for field in ("mean", "logvar"):
            values = rng.standard_normal(shape).astype(np.float32)
            bits = (values.view(np.uint32) >> 16).astype(np.uint16)  # a bfloat16 is the first half of a float32
            arrays[field] = bits if stored is np.uint16 else values.astype(np.float16)
    if made.text:
        for offset, field in enumerate(("text", "text_short")):
            if field == "text_short" and number % 3 == 0:
                continue
            length = 1 + (number + 5 * offset) % 9
            arrays[field] = rng.standard_normal((length, DIM)).astype(np.float16)
            arrays[f"{field}_mask"] = np.full(length, 255 if made.fingerprint == HOLES else 1, np.uint8)
            if made.fingerprint == HOLES:
                arrays[f"{field}_mask"][:-1:2] = 0
    return arrays


def clip_ids(buckets: Mapping[str, int]) -> dict[str, list[str]]:
    found, start = {}, 0
    for bucket, count in buckets.items():
        found[bucket] = [f"{start + i:032x}" for i in range(count)]
        start += count
    return found


def make_catalog(
    folder: Path | str,
    buckets: Mapping[str, int] = BUCKETS,
    made: Contract | Sequence[Contract] | None = None,
    per_shard: int = 4,
    lacking: int = 0,
) -> str:
    """A catalog of these clips, in shards of `per_shard`; further `lacking` clips have no latents. Its URI.

    Several contracts take turns shard by shard.
    """
    uri = str(folder)
    contracts = [made] if isinstance(made, Contract) else list(made or [contract()])
    catalog = Catalog.open_or_create(uri)
    catalog.create()
    ids = clip_ids(buckets)
    rows, count = [], 0
    for bucket, clips in ids.items():
        for begin in range(0, len(clips), per_shard):
            own = contracts[count % len(contracts)]
            count += 1
            rows += write_shard(uri, bucket, clips[begin : begin + per_shard], own)
    everything = [clip for clips in ids.values() for clip in clips]
    everything += [f"{len(everything) + i:032x}" for i in range(lacking)]
    commit_clips(catalog, everything)
    with Ledger(catalog, "latents", "clip_id", uuid.uuid4().hex) as ledger:
        commit_rows(ledger, {"latents": rows})
    return uri


def write_shard(uri: str, bucket: str, clips: Sequence[str], made: Contract) -> list[dict]:
    """The rows of `latents` for a shard that holds these clips."""
    shape = made.latent_shape(bucket)
    with ShardWriter(f"{uri}/shards/latents", made, bucket, empty={"text": EMPTY} if made.text else None) as writer:
        for clip in clips:
            info = {"conditions": {"motion": 0.0, "fps": FPS}, "source_id": source_of(clip)}
            writer.add(clip, fields_of(clip, shape, made), info)
        done = writer.publish()
    row = {
        "status": "done", "shard": f"shards/latents/{done.shard}", "shard_hash": done.hash, "shard_bytes": done.bytes,
        "index_hash": done.index_hash, "bucket": bucket, "window_start_s": 0.0, "window_fps": made.fps,
        "decode_psnr": None, "contract": made.to_json(), "settings": "made",
    }  # fmt: skip
    return [row | {"clip_id": clip, "source_id": source_of(clip)} for clip in clips]


def source_of(clip: str) -> str:
    """Three clips of four are of source 0."""
    return "s1" if int(clip, 16) % 4 == 3 else "s0"


def commit_clips(catalog: Catalog, clips: Sequence[str]) -> None:
    rows = [
        {
            "clip_id": clip, "source_id": source_of(clip), "uri": "film.mp4", "start_s": 0.0, "end_s": 2.0, "fps": 24.0,
            "width": 64, "height": 48, "motion": None if int(clip, 16) % 5 == 4 else float(int(clip, 16)),
        }
        for clip in clips
    ]  # fmt: skip
    sources = [{"source_id": s, "uri": s, "status": "done", "settings": "1"} for s in ("s0", "s1")]
    with Ledger(catalog, "sources", "source_id", uuid.uuid4().hex) as ledger:
        commit_rows(ledger, {"clips": rows, "sources": sources})
