"""Duplicates between the clips of this catalog and those of another, found as the stage `duplicates` finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.audit.subject import Subject
from curate.catalog.gates import quote
from curate.catalog.vectors import embedding_model
from curate.catalog.views import OTHER, of_other
from curate.global_stages.duplicates.settings import DuplicateSettings
from curate.query.columns.words import stages_of_tables

ACROSS = "across.parquet"  # beside audit.json
ANY = "duplicates of any kind"
BOTH = "both_catalogs"  # a database of views of both, for as long as clips are compared
MINE, THEIRS = "a", "b"  # put before the ids of each, which may be the same
COLUMNS = ("clip_id", "source_id", "media", "start_pts", "end_pts", "width", "height", "phash_frames")


@dataclass(frozen=True)
class Search:
    """How clips of two catalogs are compared, and what can't be."""

    settings: DuplicateSettings
    notes: Sequence[str] = field(default=())  # why a kind of duplicates is not looked for

    @property
    def kinds(self) -> list[str]:
        """The kinds that are looked for, as the figures of leakage name them."""
        wanted = {"exact": self.settings.exact, "near": self.settings.near, "semantic": self.settings.semantic}
        return [*(f"{name} duplicates" for name, there in wanted.items() if there), ANY]


def search_of(subject: Subject) -> Search:
    """By the settings with which the stage `duplicates` judged this catalog last, else by its defaults, as far as both
    catalogs have what it compares.
    """
    assert subject.other is not None
    made = [settings for name, settings in stages_of_tables(subject.sql).values() if name == "duplicates"]
    given = DuplicateSettings.model_validate(made[-1] if made else {}).model_copy(update={"score": None, "exact": True})
    notes = []
    if given.near and not all("phash_frames" in each.tables["clips"] for each in (subject, subject.other)):
        given = given.model_copy(update={"near": None})
        notes.append("near duplicates are not looked for: not both catalogs have the column phash_frames")
    if given.semantic and (why := _not_comparable(subject, given.semantic.table)):
        given = given.model_copy(update={"semantic": None})
        notes.append(f"semantic duplicates are not looked for: {why}")
    return Search(given, notes)


def _not_comparable(subject: Subject, table: str) -> str | None:
    """Why the embeddings of both can't be compared."""
    assert subject.other is not None
    if not all(_vector(each, table) for each in (subject, subject.other)):
        return f"not both catalogs have the table {table} of embeddings"
    one = embedding_model(subject.sql, table)
    with of_other(subject.sql):
        other = embedding_model(subject.sql, table)
    return None if one and one == other else f"the embeddings of {table} are not known to be of one model"


def _vector(subject: Subject, table: str) -> tuple[str, str] | None:
    """The columns of the embeddings and of their width."""
    there = subject.tables.get(table, {})
    for before in ("", f"{table}_"):
        if {f"{before}embedding", f"{before}dim"} <= set(there):
            return f"{before}embedding", f"{before}dim"
    return None


def write_across(path: Path, subject: Subject, second: str) -> None:
    """Writes a row for each clip with a duplicate on the other side: `one` (the part of this catalog that is compared
    with the part `second`), kind, key (the same for clips that duplicates join), part, clip_id.

    Only links between the two sides are followed, so each of these clips has a duplicate of its own there.
    """
    from pyarrow import parquet

    search = search_of(subject)
    with _both(subject):
        found = list(_compared(subject, search, second))
    parquet.write_table(pa.concat_tables([_SCHEMA.empty_table(), *found]), path)


_SCHEMA = pa.schema([(name, pa.string()) for name in ("one", "kind", "key", "part", "clip_id")])


def _compared(subject: Subject, search: Search, second: str) -> Iterator[pa.Table]:
    import pyarrow.compute as pc

    from curate.global_stages.duplicates.clips import read_clips
    from curate.global_stages.duplicates.kinds import Near, Semantic

    clips = read_clips(subject.sql, "SELECT clip_id FROM clips", search.settings)
    ids = pc.utf8_slice_codeunits(clips.ids, 1)
    # A source that both have is one source: its own takes are no near duplicates of each other.
    sources = pc.utf8_slice_codeunits(clips.source_ids, 1).dictionary_encode().indices.to_numpy().astype(np.int32)
    side = pc.equal(pc.utf8_slice_codeunits(clips.ids, 0, 1), THEIRS).to_numpy(zero_copy_only=False)
    with ExitStack() as opened:
        compared: dict[str, Near | Semantic] = {}
        if clips.frames is not None and search.settings.near is not None:
            near = Near(clips.frames, sources, clips.media, search.settings.near)
            compared["near duplicates"] = opened.enter_context(closing(near))
        if clips.embeddings is not None:
            compared["semantic duplicates"] = Semantic(clips.embeddings)
        for part, members in _parts(subject, clips.ids, second):
            found = {"exact duplicates": _exact(clips.content, members, side)}
            for kind, finder in compared.items():
                links = finder.links(members, side)
                found[kind] = links.first, links.second
            every = [np.concatenate(ends) for ends in zip(*found.values(), strict=True)]
            for kind, (first, other) in {**found, ANY: (every[0], every[1])}.items():
                yield _rows(part, kind, second, ids, side, first, other)


def _parts(subject: Subject, ids: pa.Array, second: str) -> Iterator[tuple[str, np.ndarray]]:
    """(part of this catalog, which clips are in it (n,) bool)."""
    import pyarrow.compute as pc

    listed = subject.sql.sql(f"SELECT part, '{MINE}' || clip_id AS clip_id FROM temp.parts").to_arrow_table()
    for part in sorted(set(listed["part"].unique().to_pylist()) - {second}):
        members = listed.filter(pc.equal(listed["part"], part))["clip_id"]
        yield part, pc.is_in(ids, members.combine_chunks()).to_numpy(zero_copy_only=False)


def _exact(content: np.ndarray, members: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Links from the first clip of each content that both sides have to all others of it."""
    wanted = (content >= 0) & (members | side)
    shared = np.intersect1d(content[wanted & members], content[wanted & side])
    clips = np.flatnonzero(wanted & np.isin(content, shared))
    _, first, group = np.unique(content[clips], return_index=True, return_inverse=True)
    return clips[first[group]], clips


def _rows(
    part: str, kind: str, second: str, ids: pa.Array, side: np.ndarray, first: np.ndarray, other: np.ndarray
) -> pa.Table:
    from curate.global_stages.duplicates.components import components

    roots = components(len(ids), first.astype(np.int32), other.astype(np.int32))
    clips = np.unique(np.concatenate([first, other]))
    parts = pa.array([part, second]).take(pa.array(side[clips].astype(np.int8)))
    columns = {"one": pa.repeat(part, len(clips)), "kind": pa.repeat(kind, len(clips))}
    columns |= {"key": ids.take(pa.array(roots[clips])), "part": parts, "clip_id": ids.take(pa.array(clips))}
    return pa.table(columns).cast(_SCHEMA)


@contextmanager
def _both(subject: Subject) -> Iterator[None]:
    """While the block lasts, `clips`, `sources` and tables of embeddings are those of both catalogs together."""
    sql, other = subject.sql, subject.other
    assert other is not None
    here = sql.execute("SELECT current_database()").fetchall()[0][0]
    sides = [(subject, MINE, f"{quote(here)}.main", "audited"), (other, THEIRS, f"{OTHER}.main", "other_audited")]
    sql.execute(f"ATTACH ':memory:' AS {BOTH}")
    try:
        for name, columns in {"clips": COLUMNS, "sources": ("source_id", "content_hash")}.items():
            parts = [_side_sql(*each, name, columns) for each in sides]
            sql.execute(f"CREATE VIEW {BOTH}.main.{name} AS {' UNION ALL '.join(parts)}")
        for table in {*subject.tables} & {*other.tables}:
            vectors = [_vector(subject, table), _vector(other, table)]
            if all(vectors):
                parts = [
                    f"SELECT '{letter}' || clip_id AS clip_id, {quote(vector[0])} AS embedding, "
                    f"{quote(vector[1])} AS dim FROM {place}.{quote(table)}"
                    for vector, (_, letter, place, _) in zip(vectors, sides, strict=True)
                    if vector is not None
                ]
                sql.execute(f"CREATE VIEW {BOTH}.main.{quote(table)} AS {' UNION ALL '.join(parts)}")
        sql.execute(f"USE {BOTH}")
        yield
    finally:
        sql.execute(f"USE {quote(here)}")
        sql.execute(f"DETACH {BOTH}")


def _side_sql(subject: Subject, letter: str, place: str, audited: str, name: str, columns: Sequence[str]) -> str:
    there = subject.tables[name]
    shown = [
        f"'{letter}' || {each} AS {each}" if each.endswith("_id")
        else each if each in there else f"NULL::VARCHAR AS {each}"
        for each in columns
    ]  # fmt: skip
    where = f" WHERE clip_id IN (SELECT clip_id FROM temp.{audited})" if name == "clips" else ""
    return f"SELECT {', '.join(shown)} FROM {place}.{name}{where}"
