"""clips.parquet of a VAE's run: the clips that it trains on or holds out, which say, with its config, what it saw."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import parquet

from curate.errors import UserError, first_line
from models.files import whole_file

if TYPE_CHECKING:
    from curate.training.vae_clips import TrainingClip

CLIPS = "clips.parquet"
COLUMNS = pa.schema({"clip_id": pa.string(), "bucket": pa.string(), "media": pa.string(), "held_out": pa.bool_()})


def write_split(run: Path, training: Iterable[TrainingClip], held_out: Iterable[TrainingClip]) -> None:
    """Writes the clips in the order that draws of them go by."""
    clips = [(clip, False) for clip in training] + [(clip, True) for clip in held_out]
    columns = [
        [clip.clip_id for clip, _ in clips],
        [str(clip.bucket) for clip, _ in clips],
        [clip.row["media"] for clip, _ in clips],
        [held for _, held in clips],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, COLUMNS, strict=True)]
    with whole_file(run / CLIPS) as temporary:
        parquet.write_table(pa.Table.from_arrays(arrays, schema=COLUMNS), temporary, compression="zstd")


def read_split(run: Path) -> pa.Table:
    """UserError, in one line, where there is none."""
    try:
        return parquet.read_table(run / CLIPS, columns=COLUMNS.names)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{run / CLIPS} can't be read ({first_line(error)})") from error
