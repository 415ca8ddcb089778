"""A small catalog with shards in it: drawn films, clips, a random VAE and what it really encodes, as rows and tars."""

from __future__ import annotations

import datetime
import uuid
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.storage import join
from stages.shards.contract import Contract
from stages.shards.writer import Published, ShardWriter
from stages.unit import Source
from stages.windows.buckets import Bucket, window_of
from stages.windows.prefetch import WindowPrefetcher
from stages.windows.window import PREPROCESSING_VERSION
from tests.catalog_rows import commit_rows
from tests.vae_models import vae_folder

BUCKET, FPS, SIDE, FRAMES = "5x32x32", 8.0, 48, 18
EMPTY = {"text": np.full((2, 6), 0.5, np.float16)}


def film(path: Path, seed: int) -> Fraction:
    """Writes a film of 18 frames, 48 pixels square, at 8 frames a second; gives its time base."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "10"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        colours = draw.uniform(0.2, 1, 3)
        for k in range(FRAMES):
            wave = 127 + 120 * np.sin((x + 2 * k) / 7 + seed) * np.cos((y - k) / 5)
            picture = (wave[..., None] * colours).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        return container.streams.video[0].time_base


def clips_of(folder: Path, films: int = 2) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows of sources, rows of clips): films of two clips each."""
    sources, clips = [], []
    for number in range(films):
        path = folder / f"film{number}.mp4"
        base = film(path, number)
        step = int(Fraction(1, 8) / base)
        key = f"{number:032x}"
        sources.append(
            {"source_id": key, "uri": str(path), "status": "done", "bytes": path.stat().st_size, "clips": 2,
             "content_hash": key}
        )  # fmt: skip
        for half in range(2):
            start, end = half * 9 * step, (half + 1) * 9 * step
            clips.append(
                {"clip_id": f"{number}{half}".rjust(32, "c"), "source_id": key, "uri": str(path), "media": "video",
                 "start_pts": start, "end_pts": end, "start_s": float(start * base), "end_s": float(end * base),
                 "time_base_num": base.numerator, "time_base_den": base.denominator, "width": SIDE, "height": SIDE,
                 "fps": 8.0, "frames": 9}
            )  # fmt: skip
    return sources, clips


def encoded(
    clips: list[dict[str, Any]], sources: list[dict[str, Any]], vae: Path, dtype: str = "float16"
) -> tuple[Contract, list[Any]]:
    """(contract; for each clip its id, fields, info and decode PSNR). Of a VAE with a codebook tokens are stored."""
    import torch

    from stages.encode.network import from_stored, psnr, to_stored
    from stages.latent_coders.load import load_coder

    coder = load_coder(str(vae), device="cpu", dtype="float32")
    info = coder.info
    contract = Contract(
        vae=info.kind, fingerprint=info.fingerprint, preprocessing=PREPROCESSING_VERSION, fps=FPS,
        channels=info.channels, time_stride=info.time_stride, first_frame=info.first_frame,
        space_stride=info.space_stride, mean=info.mean, std=info.std, dtype="int32" if info.codebook else dtype,
        codebook=info.codebook,
    )  # fmt: skip
    scanned = {row["source_id"]: Source(row["source_id"], row["uri"], bytes=row["bytes"]) for row in sources}
    windows = [window_of(clip, scanned[clip["source_id"]], Bucket.parse(BUCKET), FPS) for clip in clips]
    made = []
    with WindowPrefetcher() as pool:
        for clip, (window, pixels) in zip(clips, pool.fetch(windows), strict=True):
            assert not isinstance(pixels, str), pixels
            video = torch.from_numpy(pixels.video).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            found = coder.encode(video)
            if info.codebook:
                fields = {"tokens": found.tokens[0].numpy().astype("<i4")}
                decoded = coder.decode_tokens(found.tokens)[0]
            else:
                fields = {name: to_stored(getattr(found, name)[0].numpy(), dtype) for name in ("mean", "logvar")}
                decoded = coder.decode(torch.from_numpy(from_stored(fields["mean"], dtype))[None])[0]
            said = {
                "source_id": clip["source_id"], "uri": window.uri, "fps": FPS, "pts": pixels.pts,
                "time_base": [window.time_base.numerator, window.time_base.denominator],
                "start_s": float(window.start_pts * window.time_base) + window.offset_s, "crop": list(pixels.crop),
                "original_size": [SIDE, SIDE], "captions": {"caption": "waves"}, "conditions": {},
            }  # fmt: skip
            made.append((clip["clip_id"], fields, said, psnr(decoded.permute(1, 2, 3, 0).numpy(), pixels.video)))
    return contract, made


def publish(uri: str, contract: Contract, made: list[Any], vae: Path | str, **header: Any) -> Published:
    """A shard of these clips below a catalog, the PSNR of its first clip in its header."""
    recorded = {"vae_path": str(vae), "decode_psnr": {made[0][0]: made[0][3]}} | header
    with ShardWriter(join(uri, "shards", "latents"), contract, BUCKET, recorded, EMPTY) as writer:
        for key, fields, said, _ in made:
            writer.add(key, fields, said)
        return writer.publish()


def rows_of(published: Published, contract: Contract, made: list[Any], table: str = "latents") -> list[dict[str, Any]]:
    """The rows that name a shard."""
    return [
        {"clip_id": key, "source_id": said["source_id"], "status": "done", "content_hash": said["source_id"],
         "shard": f"shards/{table}/{published.shard}", "shard_hash": published.hash, "shard_bytes": published.bytes,
         "index_hash": published.index_hash, "bucket": BUCKET, "window_start_s": said["start_s"], "window_fps": FPS,
         "decode_psnr": psnr if number == 0 else None, "contract": contract.to_json()}
        for number, (key, _, said, psnr) in enumerate(made)
    ]  # fmt: skip


TYPES = {"clip_id": "string", "source_id": "string", "status": "string", "reason": "string", "content_hash": "string",
         "settings": "string", "recipe": "string", "run_id": "string", "committed_at": "timestamp[us]",
         "shard": "string", "shard_hash": "string", "shard_bytes": "int64", "index_hash": "string", "bucket": "string",
         "window_start_s": "double", "window_fps": "double", "decode_psnr": "double", "contract": "string"}  # fmt: skip


def commit(catalog: Catalog, rows: list[dict[str, Any]], table: str = "latents", replace: bool = False) -> None:
    """Commits rows of latents, as one pass of a run; with `replace` they supersede earlier rows of their clips."""
    now = datetime.datetime.now(datetime.UTC)
    types = {name: pa.timestamp("us", tz="UTC") if kind.startswith("time") else kind for name, kind in TYPES.items()}
    with Ledger(catalog, table, "clip_id", uuid.uuid4().hex) as ledger:
        commit_rows(ledger, {table: [{"committed_at": now, **row} for row in rows]}, {table: types}, redone=replace)


def make(folder: Path) -> Catalog:
    """A catalog of two films, four clips and two shards of two clips each, below `folder`, with its VAE."""
    folder.mkdir(exist_ok=True)
    vae = vae_folder(folder / "vae")
    sources, clips = clips_of(folder)
    contract, made = encoded(clips, sources, vae)
    catalog = Catalog.open_or_create(str(folder / "catalog"))
    with Ledger(catalog, "sources", "source_id", uuid.uuid4().hex) as ledger:
        commit_rows(ledger, {"clips": clips, "sources": sources})
    for part in (made[:2], made[2:]):
        commit(catalog, rows_of(publish(catalog.uri, contract, part, vae), contract, part))
    return catalog
