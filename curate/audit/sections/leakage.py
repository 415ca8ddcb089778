"""Leakage: clips, sources and duplicates that stand both in what is trained on and in what should be new to it."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.across import Search, search_of
from curate.audit.figure import Figure
from curate.audit.parts import HELD, OTHER, TRAINED
from curate.audit.subject import Subject
from curate.catalog.gates import literal

EXAMPLES = 10  # groups of each kind and pair
IDENTICAL = {
    "the clip": "parts.clip_id",
    "the source": "parts.source_id",
    "a source of the same bytes": "parts.content_hash",
}
PAIRS = ((TRAINED, HELD), (TRAINED, OTHER), (HELD, OTHER))


def figures(subject: Subject) -> Iterator[Figure]:
    parts = ("leakage.parts", "What is trained on, held out, and in the second dataset")
    shared = ("leakage.shared", "What two of these share")
    examples = ("leakage.examples", "Examples of what they share")
    if "parts" not in subject.relations:
        for id, title in (parts, shared, examples):
            yield subject.absent(id, title, "held-out clips or a second dataset (--held-out SHARE, --other DIR)")
        return
    yield subject.figure(
        *parts,
        "SELECT part, count(*) AS clips, count(judged.clip_id) AS clips_in_the_catalog, "
        "count(DISTINCT parts.source_id) AS sources, coalesce(sum(judged.seconds), 0) / 3600 AS hours "
        "FROM parts LEFT JOIN judged USING (clip_id) GROUP BY part ORDER BY part",
        "hours and duplicates are known of clips that are in this catalog",
    )
    search = search_of(subject) if "across" in subject.relations else None
    joined = _joined_sql(subject, search)
    note = "shared: clips, sources, files or clusters in both; other_share: of the clips of the other, those in them"
    if search is not None:
        note = "; ".join([note, _said(search), *search.notes])
    yield subject.figure(
        *shared,
        f"""{joined},
            there AS (SELECT part, count(*) AS clips FROM parts GROUP BY part)
        SELECT one, other, kinds.kind, count(spanning.key) AS shared,
            CAST(coalesce(sum(one_clips), 0) AS BIGINT) AS one_clips,
            CAST(coalesce(sum(other_clips), 0) AS BIGINT) AS other_clips,
            coalesce(sum(other_clips), 0) / any_value(there.clips) AS other_share
        FROM pairs JOIN there ON there.part = pairs.other JOIN kinds USING (pair)
            LEFT JOIN spanning USING (pair, one, other, number)
        WHERE pairs.one IN (SELECT part FROM there)
        GROUP BY pair, one, other, kinds.number, kinds.kind ORDER BY pair, kinds.number""",
        note,
    )
    yield subject.figure(
        *examples,
        f"""{joined}
        SELECT one, other, kind, key, one_clips, other_clips FROM spanning
        QUALIFY row_number() OVER (PARTITION BY pair, number ORDER BY other_clips DESC, key) <= {EXAMPLES}
        ORDER BY pair, number, other_clips DESC, key""",
    )


def _said(search: Search) -> str:
    """How clips of the second dataset, which are those of another catalog, are compared."""
    given, said = search.settings, ["duplicates in another catalog are those that the stage duplicates would find"]
    if given.near:
        said.append(f"near: {given.near.bits} bits, share {given.near.share:g}")
    if given.semantic:
        said.append(f"semantic: cosine {given.semantic.cosine:g}")
    return ", ".join(said)


def _joined_sql(subject: Subject, search: Search | None) -> str:
    """`pairs` of parts, the `kinds` of what each pair may share, and what is `spanning` each pair: a row for each."""
    keys = _keys(subject)
    pairs = ", ".join(f"({number}, {literal(a)}, {literal(b)})" for number, (a, b) in enumerate(PAIRS))
    here, spanning, kinds = "true", "", ""
    if search is not None:  # what this catalog's stage says of duplicates, it does not say of another's clips
        here = f"(pairs.other <> {literal(OTHER)} OR {{}}number < {len(IDENTICAL)})"
        numbers = dict(enumerate(search.kinds, len(keys)))
        listed = ", ".join(f"({number}, {literal(kind)})" for number, kind in numbers.items())
        known = f"(VALUES {listed}) AS found(number, kind)"
        kinds = f" UNION ALL SELECT pair, number, kind FROM pairs, {known} WHERE pairs.other = {literal(OTHER)}"
        spanning = f"""
                UNION ALL SELECT pair, one, other, number, kind, key, count(*) FILTER (part = one),
                    count(*) FILTER (part = other)
                FROM across JOIN {known} USING (kind) JOIN pairs USING (one)
                WHERE pairs.other = {literal(OTHER)} GROUP BY ALL"""
    return f"""
        WITH counted AS ({_counted_sql(keys)}), pairs(pair, one, other) AS (VALUES {pairs}),
            kinds AS (SELECT DISTINCT pair, number, kind FROM pairs, counted WHERE {here.format("")}{kinds}),
            spanning AS (SELECT pair, one, other, a.number, a.kind, a.key, a.clips AS one_clips, b.clips AS other_clips
                FROM pairs JOIN counted AS a ON a.part = pairs.one
                JOIN counted AS b ON b.part = pairs.other AND b.number = a.number AND b.key = a.key
                WHERE {here.format("a.")}{spanning})"""


def _keys(subject: Subject) -> dict[str, str]:
    """What two parts may share -> SQL that gives it, in the relation of `_counted_sql`; NULL where there is none."""
    keys = dict(IDENTICAL)
    if subject.has("duplicate_cluster", "duplicate_kind"):
        keys["exact duplicates"] = "CASE WHEN duplicate_kind = 'exact' THEN duplicate_cluster END"
        keys["duplicates of any kind"] = "CASE WHEN duplicate_kind IS NOT NULL THEN duplicate_cluster END"
    if subject.has("duplicate_component", "duplicate_kind"):
        keys["duplicates of duplicates"] = "CASE WHEN duplicate_kind IS NOT NULL THEN duplicate_component END"
    return keys


def _counted_sql(keys: dict[str, str]) -> str:
    """Rows of a kind, key and part with their number of clips."""
    known = "parts LEFT JOIN judged USING (clip_id)"
    return " UNION ALL ".join(
        f"SELECT {number} AS number, {literal(kind)} AS kind, {key} AS key, part, count(*) AS clips FROM {known} "
        f"WHERE {key} IS NOT NULL GROUP BY ALL"
        for number, (kind, key) in enumerate(keys.items())
    )
