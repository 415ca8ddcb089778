"""Decodes clips of shards again: do the stored latents still give the pixels of their source?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.storage import is_local
from stages.base import SettingsError, one_line
from stages.frames import SourceError
from stages.shards.contract import Contract, sizes
from stages.shards.format import JSON, ShardError, read_index, read_sample

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
    from stages.windows.pool import WindowPool

    places = _places(sql, [sample.clip_id for sample in samples])
    ready: list[tuple[Sampled, list[int], Any]] = []  # with the PTS that were encoded, and the window
    for sample in sorted(samples, key=lambda sample: (sample.vae_path, sample.precision, sample.shard)):
        try:
            info = _fields(sample, JSON)
            ready.append((sample, list(info["pts"]), _window(sample, info, places.get(sample.clip_id))))
        except (ShardError, SourceError) as error:
            yield sample, str(error)
        except (KeyError, TypeError, ValueError) as error:
            yield sample, f"its JSON does not say where it is from ({type(error).__name__}: {error})"
    if not ready:
        return
    coder = _Coder()
    with WindowPool() as pool, closing(pool.fetch(window for _, _, window in ready)) as answers:
        for (sample, pts, _), (_, pixels) in zip(ready, answers, strict=True):
            if isinstance(pixels, str):
                yield sample, pixels
            elif list(pixels.pts) != pts:
                yield sample, "the source has frames at other times now"
            else:
                yield sample, coder.psnr(sample, pixels.video)


class _Coder:
    """The VAE of the last sample, kept for the next."""

    def __init__(self) -> None:
        self.of: tuple[str, str] | None = None
        self.coder: Any = None

    def psnr(self, sample: Sampled, video: np.ndarray) -> float | str:
        """dB against pixels (T, H, W, 3) uint8, or why it can't be said."""
        from stages.encode.network import psnr
        from stages.latent_coders.load import load_coder

        try:
            if self.of != (sample.vae_path, sample.precision):
                self.coder = None
                self.coder = load_coder(sample.vae_path, dtype=sample.precision)
                self.of = (sample.vae_path, sample.precision)
            field = "mean" if sample.contract.codebook is None else "tokens"
            return psnr(_decoded(self.coder, sample.contract, _fields(sample, field)), video)
        except (SettingsError, ShardError, ValueError, MemoryError, RuntimeError) as error:
            return one_line(error)[:300]


def _fields(sample: Sampled, field: str) -> Any:
    """One field of the clip, out of its shard."""
    found = (row for row in read_index(sample.path).to_pylist() if row["clip_id"] == sample.clip_id)
    rows = [row for row in found if row["field"] == field]
    if not rows:
        raise ShardError(f"the shard has no {field} of it")
    return read_sample(sample.path, rows)[field]


def _window(sample: Sampled, info: Mapping[str, Any], place: Mapping[str, Any] | None) -> Any:
    """The window that the clip's JSON tells of; SourceError where its clip or source is not there any more."""
    from stages.windows.window import Window

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


def _decoded(coder: Any, contract: Contract, stored: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) in [-1, 1] of what is stored: a mean or tokens."""
    import torch

    from stages.encode.network import from_stored

    if contract.codebook is not None:
        decoded = coder.decode_tokens(torch.from_numpy(stored.astype(np.int64))[None])
    else:
        decoded = coder.decode(torch.from_numpy(from_stored(stored, contract.dtype))[None])
    return decoded[0].cpu().permute(1, 2, 3, 0).numpy()
