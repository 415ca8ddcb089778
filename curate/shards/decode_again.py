"""Decodes latents of sampled clips and compares them with the pixels of their source, for `clipmill verify`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.storage import is_local, local_path
from stages.base import SettingsError, one_line
from stages.decode.archives.uri import file_uri
from stages.decode.rendering import Rendering
from stages.frames import SourceError
from stages.shards.contract import Contract, sizes
from stages.shards.format import JSON, ShardError, read_index, read_sample
from stages.unit import Place

if TYPE_CHECKING:
    import duckdb
    from torch import Tensor

    from stages.latent_coders.coder import LatentCoder
    from stages.settings import Dtype
    from stages.windows.window import Window

TOLERANCE = 0.1  # dB


@dataclass(frozen=True)
class RecordedPsnr:
    """A clip whose decode PSNR was recorded when it was encoded."""

    shard: str  # path relative to the catalog, for messages
    path: str
    clip_id: str
    psnr: float
    bucket: str
    contract: Contract
    vae_path: str
    dtype: Dtype  # of the VAE when the PSNR was measured


def decode_again(
    sql: duckdb.DuckDBPyConnection, samples: Sequence[RecordedPsnr]
) -> Iterator[tuple[RecordedPsnr, float | str]]:
    """The decode PSNR in dB of each clip now, or why it was not decoded."""
    from stages.windows.prefetch import WindowPrefetcher

    places = _places(sql, [sample.clip_id for sample in samples])
    ready: list[tuple[RecordedPsnr, list[int], Window]] = []  # with the PTS that were encoded
    for sample in sorted(samples, key=lambda sample: (sample.vae_path, sample.dtype, sample.shard)):
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
    with WindowPrefetcher() as pool, closing(pool.fetch(window for _, _, window in ready)) as answers:
        for (sample, pts, _), (_, pixels) in zip(ready, answers, strict=True):
            if isinstance(pixels, str):
                yield sample, pixels
            elif list(pixels.pts) != pts:
                yield sample, "the source has frames at other times now"
            else:
                yield sample, coder.psnr(sample, pixels.video)


class _Coder:
    """Loads VAEs, and keeps the last one for the next sample."""

    def __init__(self) -> None:
        self.of: tuple[str, str] | None = None  # path and dtype
        self.coder: LatentCoder | None = None

    def psnr(self, sample: RecordedPsnr, video: np.ndarray) -> float | str:
        """The decode PSNR in dB against pixels (T, H, W, 3) uint8, or why it can't be measured."""
        from stages.encode.network import decoded_psnr
        from stages.latent_coders.load import load_coder

        try:
            if self.coder is None or self.of != (sample.vae_path, sample.dtype):
                self.coder = None  # frees its memory before the next is loaded
                self.coder = load_coder(sample.vae_path, dtype=sample.dtype)
                self.of = (sample.vae_path, sample.dtype)
            field = "mean" if sample.contract.codebook is None else "tokens"
            return decoded_psnr(self.coder, _latents(self.coder, sample.contract, _fields(sample, field)), video)
        except (SettingsError, ShardError, ValueError, MemoryError, RuntimeError) as error:
            return one_line(error)[:300]


def _fields(sample: RecordedPsnr, field: str) -> Any:
    """One field of the clip, from its shard."""
    found = (row for row in read_index(sample.path).to_pylist() if row["clip_id"] == sample.clip_id)
    rows = [row for row in found if row["field"] == field]
    if not rows:
        raise ShardError(f"the shard has no {field} of it")
    return read_sample(sample.path, rows)[field]


def _window(sample: RecordedPsnr, info: Mapping[str, Any], place: Mapping[str, Any] | None) -> Window:
    """The window that was encoded, by the clip's JSON. SourceError if its clip or source is gone."""
    from stages.windows.window import Window

    if place is None:
        raise SourceError("its clip is not in the catalog any more")
    uri = place["uri"]
    if is_local(file := file_uri(uri)) and not os.path.exists(local_path(file)):
        raise SourceError(f"its source {uri} is not at hand")
    frames, height, width = sizes(sample.bucket)
    base = Fraction(*info["time_base"])
    letterbox = tuple(info["letterbox"]) if info.get("letterbox") else None
    ticks = round(Fraction(info["start_s"]) / base) - place["start_pts"]  # windows begin at whole ticks
    return Window(
        sample.clip_id, uri, place["bytes"], place["start_pts"], place["end_pts"], base,
        float(ticks * base), info["fps"], frames, letterbox, height, width,
        Rendering.of_clip(dataclasses.asdict(sample.contract)),
        Place.known(place["archive_offset"], place["bytes"]),
    )  # fmt: skip


def _places(sql: duckdb.DuckDBPyConnection, clips: list[str]) -> dict[str, dict[str, Any]]:
    """Where each clip's source lies, its span there, and the size of the source when it was scanned."""
    rows = sql.execute(
        "SELECT clip_id, clips.uri, start_pts, end_pts, bytes, archive_offset "
        "FROM clips JOIN sources USING (source_id) WHERE clip_id IN (SELECT unnest(?))", [clips],
    ).fetchall()  # fmt: skip
    names = ("uri", "start_pts", "end_pts", "bytes", "archive_offset")
    return {clip: dict(zip(names, found, strict=True)) for clip, *found in rows}


def _latents(coder: LatentCoder, contract: Contract, stored: np.ndarray) -> Tensor:
    """(1, Z, t, h, w) of a stored mean or tokens."""
    import torch

    from stages.encode.network import from_stored

    if contract.codebook is not None:
        return coder.latents_of(torch.from_numpy(stored.astype(np.int64))[None])
    return torch.from_numpy(from_stored(stored, contract.dtype))[None]
