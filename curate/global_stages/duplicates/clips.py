"""Reads the clips to judge as arrays, and what an earlier run said of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.catalog.gates import quote
from curate.catalog.vectors import read_embeddings
from curate.global_stages.duplicates.frames import FrameHashes
from curate.global_stages.duplicates.semantic import CellIndex
from curate.global_stages.duplicates.settings import DuplicateSettings, SemanticSettings
from stages.base import SettingsError

BATCH_ROWS = 65_536
JUDGED = "clipmill_judged"  # a temporary table: clip (its number) and clip_id


@dataclass
class ClipColumns:
    """The clips to judge, in order of their ids. Every column is (n,), and a clip's number is its place in it.

    `basis` is a hash of all that the judgement of a clip follows from: a clip with another hash has changed.
    """

    ids: pa.Array
    source_ids: pa.Array
    sources: np.ndarray  # a number for each source
    media: np.ndarray  # a number for each kind of media
    content: np.ndarray  # a number for each span of content that several clips share, -1 for other clips
    area: np.ndarray  # pixels
    score: np.ndarray  # NaN where there is none
    captioned: np.ndarray  # bool: whether the clip has a caption
    basis: np.ndarray  # uint64
    frames: FrameHashes | None
    embeddings: CellIndex | None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Earlier:
    """What an earlier run said of `clips` (m,), by their present numbers; the rest is (m,) too."""

    clips: np.ndarray
    component: np.ndarray  # number of the component's first clip
    duplicate_of: np.ndarray  # number of the kept clip, -1 for a clip that is kept itself
    kind: pa.Array


def read_clips(connection: duckdb.DuckDBPyConnection, select: str, settings: DuplicateSettings) -> ClipColumns:
    """The clips that `select` gives. SettingsError where a column or table that the settings need is missing."""
    there = {row[0] for row in connection.sql("DESCRIBE clips").fetchall()}
    if settings.near and "phash_frames" not in there:
        raise SettingsError(
            "near duplicates need the column phash_frames: put phash into `measure:` of the recipe that fills clips, "
            "or say `near: false`"
        )
    connection.sql(f"""
        CREATE OR REPLACE TEMP TABLE {JUDGED} AS
        SELECT CAST(row_number() OVER (ORDER BY clip_id) - 1 AS INTEGER) AS clip, clip_id
        FROM (SELECT DISTINCT clip_id FROM ({select}\n))""")
    captions = [quote(name) for name in there if f"{name}_words" in there]  # the stage `caption` counts their words
    count = connection.sql(f"SELECT count(*) FROM {JUDGED}").fetchall()[0][0]
    rows = connection.sql(f"""
        SELECT j.clip, c.source_id, c.score, c.captioned, c.phash_frames,
            md5_number_lower(c.source_id) AS source, md5_number_lower(c.media) AS media,
            coalesce(CAST(c.width AS BIGINT) * c.height, 0) AS area,
            CASE WHEN s.content_hash IS NOT NULL
                THEN md5_number_lower(concat_ws('|', s.content_hash, c.start_pts, c.end_pts)) END AS content,
            md5_number_lower([s.content_hash, c.source_id, c.media, c.start_pts::VARCHAR, c.end_pts::VARCHAR,
                c.width::VARCHAR, c.height::VARCHAR, c.score::VARCHAR, c.captioned::VARCHAR,
                c.phash_frames]::VARCHAR) AS basis
        FROM {JUDGED} AS j JOIN (
            SELECT clip_id, source_id, coalesce(media, '') AS media, start_pts, end_pts, width, height,
                {"phash_frames" if settings.near else "NULL::VARCHAR AS phash_frames"},
                CAST(({settings.score or "NULL"}\n) AS DOUBLE) AS score,
                coalesce({", ".join(["NULL", *captions])}) IS NOT NULL AS captioned
            FROM clips
        ) AS c USING (clip_id) LEFT JOIN sources AS s ON s.source_id = c.source_id""").to_arrow_reader(BATCH_ROWS)
    table = _Columns(count)
    hashes = FrameHashes.read(table.fill(rows), count)
    columns = table.columns
    ids = connection.sql(f"SELECT clip_id FROM {JUDGED} ORDER BY clip").to_arrow_table()["clip_id"]
    clips = ClipColumns(
        ids.combine_chunks(),
        table.source_ids(),
        table.numbers("source"),
        table.numbers("media"),
        _shared(columns["content"], columns["known"]) if settings.exact else np.full(count, -1, np.int64),
        columns["area"],
        columns["score"],
        columns["captioned"],
        columns["basis"],
        hashes if settings.near else None,
        None,
    )
    if settings.semantic:
        _read_embeddings(connection, clips, settings.semantic)
    connection.sql(f"DROP TABLE {JUDGED}")
    return clips


class _Columns:
    """Columns of batches that come in any order, put in order of the clips' numbers. Texts that are only compared
    come as hashes.
    """

    def __init__(self, count: int):
        types: dict[str, type[np.generic] | type[bool]] = {
            "area": np.int64,
            "score": np.float64,
            "known": bool,
            "captioned": bool,
        }
        types |= {name: np.uint64 for name in ("source", "media", "content", "basis")}
        self.columns = {name: np.zeros(count, kind) for name, kind in types.items()}
        self._places: list[np.ndarray] = []
        self._sources: list[pa.Array] = []

    def fill(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Takes its columns out of every batch and passes on those that FrameHashes reads."""
        for batch in batches:
            at = batch.column("clip").to_numpy()
            for name in ("area", "basis", "source", "media"):
                self.columns[name][at] = batch.column(name).to_numpy()
            self.columns["score"][at] = batch.column("score").to_numpy(zero_copy_only=False)  # NULL is NaN
            self.columns["captioned"][at] = batch.column("captioned").to_numpy(zero_copy_only=False)
            self.columns["known"][at] = batch.column("content").is_valid().to_numpy(zero_copy_only=False)
            self.columns["content"][at] = batch.column("content").fill_null(0).to_numpy()
            self._places.append(at)
            self._sources.append(batch.column("source_id"))
            yield batch.select(["clip", "phash_frames"])

    def source_ids(self) -> pa.Array:
        order = np.argsort(np.concatenate([np.zeros(0, np.int32), *self._places]))
        return pa.chunked_array(self._sources, pa.string()).take(pa.array(order)).combine_chunks()

    def numbers(self, name: str) -> np.ndarray:
        """(n,) int32: a number for each distinct value."""
        return np.unique(self.columns[name], return_inverse=True)[1].astype(np.int32)


def _shared(content: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n,): a number for each known value that several clips have, -1 for other clips."""
    _, group, counts = np.unique(content, return_inverse=True, return_counts=True)
    counts_known = np.bincount(group[known], minlength=len(counts))
    return np.where(known & (counts_known[group] > 1), group, -1)


def _read_embeddings(connection: duckdb.DuckDBPyConnection, clips: ClipColumns, settings: SemanticSettings) -> None:
    ids, matrix = read_embeddings(connection, settings.table, f"clip_id IN (SELECT clip_id FROM {JUDGED})")
    rows = np.searchsorted(_keys(clips.ids), np.array(ids, dtype="S"))
    clips.embeddings = CellIndex(rows, matrix, len(clips), settings.cosine, settings.clusters)
    digests = [xxhash.xxh3_64_intdigest(vector.tobytes()) for vector in matrix]
    clips.basis[rows] ^= np.array(digests, np.uint64)


def read_earlier(clips: ClipColumns, previous: pa.Table | None) -> Earlier | None:
    """What the table holds from an earlier run; None where one of its clips is gone or has changed, since then
    everything must be judged again.
    """
    if previous is None or not previous.num_rows:
        return None
    keys = _keys(clips.ids)

    def numbers(column: str) -> np.ndarray:
        """(m,): the present numbers of the clips that a column names, -1 for NULL and for clips that are gone."""
        numbers = np.full(len(previous), -1, np.int64)
        valid = previous[column].is_valid().to_numpy()
        wanted = _keys(previous[column].drop_null().combine_chunks())
        if len(keys) and len(wanted):
            found = np.searchsorted(keys, wanted).clip(0, len(keys) - 1)
            numbers[valid] = np.where(keys[found] == wanted, found, -1)
        return numbers

    at, component, duplicate_of = numbers("clip_id"), numbers("duplicate_component"), numbers("duplicate_of")
    if (at < 0).any() or (component < 0).any() or len(np.unique(at)) < len(at):
        return None
    basis = np.frombuffer(b"".join(previous["duplicate_basis"].to_pylist()), "<u8")
    if len(basis) != len(at) or not np.array_equal(basis, clips.basis[at]):
        return None
    return Earlier(at, component, duplicate_of, previous["duplicate_kind"].combine_chunks())


def _keys(ids: pa.Array) -> np.ndarray:
    """Ids as byte strings of one width, which numpy sorts and searches in the order in which DuckDB sorts text."""
    widths = pc.min_max(pc.binary_length(ids)).as_py()
    if widths["min"] is None or widths["min"] != widths["max"]:
        return np.array(ids.to_pylist(), dtype="S")
    fixed = ids.cast(pa.binary()).cast(pa.binary(widths["max"]))
    return np.frombuffer(fixed.buffers()[1], f"S{widths['max']}", len(ids), fixed.offset * widths["max"])
