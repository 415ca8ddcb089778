"""What is known of the clips to be judged, as arrays, and what was said of them before."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import xxhash

from curate.duplicates.frames import FrameHashes
from curate.duplicates.semantic import Embeddings
from curate.duplicates.settings import DuplicateSettings
from curate.vectors import read_embeddings
from stages.base import SettingsError

BATCH_ROWS = 65_536
JUDGED = "clipmill_judged"  # a temporary table: clip (its number), clip_id and what follows from the row


@dataclass
class Clips:
    """The clips in order of their ids: everything is (n,), and a clip is its place in it.

    `basis` is a hash of all that a clip's judgement follows from: it tells clips that changed since.
    """

    ids: pa.Array
    source_ids: pa.Array
    sources: np.ndarray  # a number for each source
    media: np.ndarray  # a number for each kind of media
    content: np.ndarray  # a number for each span of content that several clips have, -1 elsewhere
    area: np.ndarray  # pixels
    score: np.ndarray  # NaN where there is none
    basis: np.ndarray  # uint64
    frames: FrameHashes | None
    embeddings: Embeddings | None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Earlier:
    """What an earlier run said. `clips` (m,) are places in the present order; the rest is (m,) as well."""

    clips: np.ndarray
    component: np.ndarray  # place of the component's first clip
    duplicate_of: np.ndarray  # place, -1 where kept
    kind: pa.Array


def read_clips(connection: duckdb.DuckDBPyConnection, select: str, settings: DuplicateSettings) -> Clips:
    """The clips that `select` names. SettingsError where a column or table that the settings need is missing."""
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
    count = connection.sql(f"SELECT count(*) FROM {JUDGED}").fetchall()[0][0]
    rows = connection.sql(f"""
        SELECT j.clip, c.source_id, c.media, c.score, c.phash_frames,
            coalesce(CAST(c.width AS BIGINT) * c.height, 0) AS area,
            CASE WHEN s.content_hash IS NOT NULL
                THEN md5_number_lower(concat_ws('|', s.content_hash, c.start_pts, c.end_pts)) END AS content,
            md5_number_lower([s.content_hash, c.source_id, c.media, c.start_pts::VARCHAR, c.end_pts::VARCHAR,
                c.width::VARCHAR, c.height::VARCHAR, c.score::VARCHAR, c.phash_frames]::VARCHAR) AS basis
        FROM {JUDGED} AS j JOIN (
            SELECT clip_id, source_id, coalesce(media, '') AS media, start_pts, end_pts, width, height,
                {"phash_frames" if settings.near else "NULL::VARCHAR AS phash_frames"},
                CAST(({settings.score or "NULL"}\n) AS DOUBLE) AS score
            FROM clips
        ) AS c USING (clip_id) LEFT JOIN sources AS s ON s.source_id = c.source_id""").to_arrow_reader(BATCH_ROWS)
    table = _Columns(count)
    hashes = FrameHashes.read(table.taking(rows), count)
    found = table.columns
    ids = connection.sql(f"SELECT clip_id FROM {JUDGED} ORDER BY clip").to_arrow_table()["clip_id"]
    clips = Clips(
        ids.combine_chunks(),
        table.source_ids(),
        found["source"],
        found["media"],
        _shared(found["content"], found["known"]) if settings.exact else np.full(count, -1, np.int64),
        found["area"],
        found["score"],
        found["basis"],
        hashes if settings.near else None,
        None,
    )
    if settings.semantic:
        _read_embeddings(connection, clips, settings)
    connection.sql(f"DROP TABLE {JUDGED}")
    return clips


class _Columns:
    """Columns of batches that come in any order, laid out by the clips' numbers."""

    def __init__(self, count: int):
        kinds = {"source": np.int32, "media": np.int32, "content": np.uint64, "known": bool}
        kinds |= {"area": np.int64, "score": np.float64, "basis": np.uint64}
        self.columns = {name: np.zeros(count, kind) for name, kind in kinds.items()}
        self._codes: dict[str, dict[str | None, int]] = {"source": {}, "media": {}}

    def taking(self, batches):
        for batch in batches:
            at = batch.column("clip").to_numpy()
            for name in ("area", "basis"):
                self.columns[name][at] = batch.column(name).to_numpy()
            self.columns["score"][at] = batch.column("score").to_numpy(zero_copy_only=False)  # NULL is NaN
            self.columns["known"][at] = batch.column("content").is_valid().to_numpy(zero_copy_only=False)
            self.columns["content"][at] = batch.column("content").fill_null(0).to_numpy()
            for name, column in (("source", "source_id"), ("media", "media")):
                coded = batch.column(column).dictionary_encode()
                codes = self._codes[name]
                new = [codes.setdefault(value, len(codes)) for value in coded.dictionary.to_pylist()]
                self.columns[name][at] = np.array(new, np.int32)[coded.indices.fill_null(0).to_numpy()]
            yield batch.select(["clip", "phash_frames"])

    def source_ids(self) -> pa.Array:
        return pa.array(list(self._codes["source"]), pa.string()).take(pa.array(self.columns["source"]))


def _shared(content: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A number for each value that several clips have, -1 elsewhere."""
    _, group, counts = np.unique(content, return_inverse=True, return_counts=True)
    counts_known = np.bincount(group[known], minlength=len(counts))
    return np.where(known & (counts_known[group] > 1), group, -1)


def _read_embeddings(connection: duckdb.DuckDBPyConnection, clips: Clips, settings: DuplicateSettings) -> None:
    wanted = settings.semantic
    ids, matrix = read_embeddings(connection, wanted.table, f"clip_id IN (SELECT clip_id FROM {JUDGED})")
    rows = np.searchsorted(_keys(clips.ids), np.array(ids, dtype="S"))
    clips.embeddings = Embeddings(rows, matrix, len(clips), wanted.cosine, wanted.clusters)
    digests = [xxhash.xxh3_64_intdigest(vector.tobytes()) for vector in matrix]
    clips.basis[rows] ^= np.array(digests, np.uint64)


def read_earlier(clips: Clips, previous: pa.Table | None) -> Earlier | None:
    """None where a clip of then is gone or has changed: then nothing said before may hold still."""
    if previous is None or not previous.num_rows:
        return None
    keys = _keys(clips.ids)

    def places(column: str) -> np.ndarray:
        there = previous[column].is_valid().to_numpy()
        wanted = _keys(previous[column].fill_null("").combine_chunks())
        found = np.searchsorted(keys, wanted).clip(0, max(len(keys) - 1, 0))
        known = keys[found] == wanted if len(keys) else np.zeros(len(wanted), bool)
        return np.where(there & known, found, -1)

    at, component, duplicate_of = places("clip_id"), places("duplicate_component"), places("duplicate_of")
    if (at < 0).any() or (component < 0).any() or len(np.unique(at)) < len(at):
        return None
    basis = np.frombuffer(b"".join(previous["duplicate_basis"].to_pylist()), "<u8")
    if len(basis) != len(at) or not np.array_equal(basis, clips.basis[at]):
        return None
    return Earlier(at, component, duplicate_of, previous["duplicate_kind"].combine_chunks())


def _keys(ids: pa.Array) -> np.ndarray:
    """Ids as fixed-width bytes, which numpy sorts and searches as DuckDB sorts text."""
    return np.array(ids.to_pylist(), dtype="S")
