"""Decodes clips of shards again: do the stored latents still give the pixels of their source?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.storage import is_local
from stages.base import SettingsError, one_line
from stages.contract import Contract, sizes
from stages.frames import SourceError
from stages.shard_format import JSON, ShardError, read_index, read_sample

if TYPE_CHECKING:
    import duckdb

TOLERANCE = 0.1  # dB


@dataclass(frozen=True)
class Sampled:
    """A clip whose decode PSNR was recorded: in which shard (for messages, and where it lies), and by which VAE."""

    shard: str
    path: str
    clip_id: str
    psnr: float
    bucket: str
    contract: Contract
    vae_path: str
    precision: str  # of the network that the PSNR was taken with


def decode_again(sql: duckdb.DuckDBPyConnection, samples: Sequence[Sampled]) -> Iterator[tuple[Sampled, float | str]]:
    """The PSNR in dB that each clip gives now, or why it was not decoded."""
    from stages.encode.network import psnr
    from stages.fetch_windows import WindowPool
    from stages.latent_coders import load_coder

    places = _places(sql, [sample.clip_id for sample in samples])
    ready: list[tuple[Sampled, dict[str, Any], Any]] = []
    for sample in samples:
        try:
            fields = _fields(sample)
            ready.append((sample, fields, _window(sample, fields[JSON], places.get(sample.clip_id))))
        except (ShardError, SourceError) as error:
            yield sample, str(error)
    coders: dict[str, Any] = {}
    with ExitStack() as closing:
        answers = iter(())
        if ready:
            pool = closing.enter_context(WindowPool())
            answers = pool.fetch(window for _, _, window in ready)
            closing.callback(answers.close)
        for (sample, fields, _), (_, pixels) in zip(ready, answers, strict=True):
            if isinstance(pixels, str):
                yield sample, pixels
            elif list(pixels.pts) != fields[JSON]["pts"]:
                yield sample, "the source has frames at other times now"
            else:
                try:
                    if sample.vae_path not in coders:
                        coders[sample.vae_path] = load_coder(sample.vae_path, dtype=sample.precision)
                    yield sample, psnr(_decoded(coders[sample.vae_path], sample.contract, fields), pixels.video)
                except (SettingsError, ValueError, MemoryError, RuntimeError) as error:
                    yield sample, one_line(error)[:300]


def _fields(sample: Sampled) -> dict[str, Any]:
    """The clip's latents and JSON, out of its shard."""
    name = "mean" if sample.contract.codebook is None else "tokens"
    rows = [r for r in read_index(sample.path).to_pylist() if r["clip_id"] == sample.clip_id]
    found = read_sample(sample.path, [row for row in rows if row["field"] in (name, JSON)])
    if set(found) != {name, JSON}:
        raise ShardError(f"the shard has no {name} of it")
    return found


def _window(sample: Sampled, info: Mapping[str, Any], place: Mapping[str, Any] | None) -> Any:
    """The window that the clip's JSON tells of; SourceError where its clip or source is not there any more."""
    from stages.windows import Window

    if place is None:
        raise SourceError("its clip is not in the catalog any more")
    if is_local(info["uri"]) and not os.path.exists(info["uri"].removeprefix("file://")):
        raise SourceError(f"its source {info['uri']} is not at hand")
    frames, height, width = sizes(sample.bucket)
    base = Fraction(*info["time_base"])
    letterbox = tuple(info["letterbox"]) if info.get("letterbox") else None
    ticks = round(Fraction(info["start_s"]) / base) - place["start_pts"]  # windows begin at whole ticks
    return Window(
        sample.clip_id, info["uri"], place["bytes"], place["start_pts"], place["end_pts"], base,
        float(ticks * base), info["fps"], frames, letterbox, height, width,
    )  # fmt: skip


def _places(sql: duckdb.DuckDBPyConnection, clips: list[str]) -> dict[str, dict[str, Any]]:
    """Where in its source each clip lies, and how large the source was when it was scanned."""
    rows = sql.execute(
        "SELECT clip_id, start_pts, end_pts, bytes FROM raw.clips JOIN raw.sources USING (source_id) "
        "WHERE clip_id IN (SELECT unnest(?))", [clips],
    ).fetchall()  # fmt: skip
    return {clip: {"start_pts": start, "end_pts": end, "bytes": size} for clip, start, end, size in rows}


def _decoded(coder: Any, contract: Contract, fields: Mapping[str, Any]) -> np.ndarray:
    """(T, H, W, 3) in [-1, 1] of what is stored."""
    import torch

    from stages.encode.network import from_stored

    if contract.codebook is not None:
        decoded = coder.decode_tokens(torch.from_numpy(fields["tokens"].astype(np.int64))[None])
    else:
        decoded = coder.decode(torch.from_numpy(from_stored(fields["mean"], contract.dtype))[None])
    return decoded[0].cpu().permute(1, 2, 3, 0).numpy()
