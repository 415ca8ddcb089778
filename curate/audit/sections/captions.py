"""Captions: how long, how repetitive, how many are cut off or refuse, how well they fit the picture, and samples."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.columns import Captions
from curate.audit.figure import Figure
from curate.audit.subject import Subject
from curate.catalog.gates import literal, quote

SAMPLES = 4  # texts of each kind
SHOWN = 600  # characters of a text
LOOPING = 0.3  # share of repeated word triples from which a text counts as repetitive


def figures(subject: Subject) -> Iterator[Figure]:
    texts = ("captions.texts", "Captions: texts, words, repetition, agreement with the picture")
    models = ("captions.models", "Models that wrote captions, with their revisions")
    samples = ("captions.samples", "Samples of captions")
    if not subject.captions:
        yield subject.absent(*texts, "a column of captions")
        yield subject.absent(*models, "a column of captions")
        yield subject.absent(*samples, "a column of captions")
        return
    parts = " UNION ALL ".join(_texts_sql(number, each, subject) for number, each in enumerate(subject.captions))
    yield subject.figure(
        *texts,
        f"SELECT * EXCLUDE (number) FROM ({parts}) ORDER BY number",
        f"different: texts that differ, by a hash of 64 bits; repetitive: at least {LOOPING} of the word triples stood "
        "in the text before; their distributions are with the signals",
    )
    parts = " UNION ALL ".join(_models_sql(number, each, subject) for number, each in enumerate(subject.captions))
    yield subject.figure(
        *models,
        f"SELECT * EXCLUDE (number) FROM ({parts}) ORDER BY number, source, model, revision",
        "source: `model`, `server` or `manifest` (a text that came with the sources), null where it is not recorded",
    )
    yield subject.figure(*samples, _samples_sql(subject), f"texts are cut after {SHOWN} characters")


def _texts_sql(number: int, captions: Captions, subject: Subject) -> str:
    def measured(name: str, sql: str) -> str:
        return sql.format(quote(captions.measure(name))) if subject.has(captions.measure(name)) else "NULL"

    # Texts are read once, from their own table: in a join they would fill the memory.
    chosen = "" if subject.chosen.sql is None else " AND clip_id IN (SELECT clip_id FROM audited)"
    return f"""
        SELECT {number} AS number, {literal(captions.column)} AS of_column, {measured("words", "count({0})")} AS clips,
            (SELECT count(DISTINCT hash({quote(captions.column)})) FROM {_done_sql(captions, subject)}
                WHERE {quote(captions.column)} IS NOT NULL{chosen}) AS different,
            {measured("words", "avg({0})")} AS words_mean, {measured("words", "median({0})")} AS words_median,
            {measured("repetition", f"count(*) FILTER ({{0}} >= {LOOPING})")} AS repetitive,
            {measured("truncated", "count(*) FILTER ({0})")} AS truncated,
            {measured("refusal", "count(*) FILTER ({0})")} AS refusals,
            {measured("boilerplate", "count(*) FILTER ({0})")} AS boilerplate,
            {measured("clip_match", "median({0})")}::DOUBLE AS match_median,
            {measured("clip_match", "quantile_cont({0}, 0.05)")}::DOUBLE AS match_q05
        FROM audited"""


def _models_sql(number: int, captions: Captions, subject: Subject) -> str:
    there, column = subject.tables[captions.table], quote(captions.column)
    names = {"source": f"{captions.column}_source", "model": "model", "revision": "revision"}
    made = ", ".join(f"{quote(name) if name in there else 'NULL::VARCHAR'} AS {shown}" for shown, name in names.items())
    done = " AND status = 'done'" if "status" in there else ""
    return f"""
        SELECT {number} AS number, {literal(captions.column)} AS of_column, source, model, revision,
            count(*) AS clips, coalesce(sum(seconds), 0) / 3600 AS hours,
            count(*) FILTER (kept) AS kept_clips, coalesce(sum(seconds) FILTER (kept), 0) / 3600 AS kept_hours,
            coalesce(sum(words), 0)::BIGINT AS words, coalesce(sum(words) FILTER (kept), 0)::BIGINT AS kept_words
        FROM (SELECT clip_id, seconds, kept, {quote(captions.measure("words"))} AS words FROM audited)
        JOIN (SELECT clip_id, {made} FROM {quote(captions.table)} WHERE {column} IS NOT NULL{done}) USING (clip_id)
        GROUP BY ALL"""


def _done_sql(captions: Captions, subject: Subject) -> str:
    """The table of captions without the rows of failures."""
    done = " WHERE status = 'done'" if "status" in subject.tables[captions.table] else ""
    return f"(SELECT clip_id, {quote(captions.column)} FROM {quote(captions.table)}{done})"


def _samples_sql(subject: Subject) -> str:
    """The picks of each kind by the narrow columns, their texts by one look into the catalog."""
    picks: list[str] = []
    for captions in subject.captions:
        words, repetition = quote(captions.measure("words")), quote(captions.measure("repetition"))
        ranks = {"random": "hash(clip_id)", "longest": f"-{words}", "shortest": words, "repetitive": f"-{repetition}"}
        match = "NULL::DOUBLE"
        if subject.has(captions.measure("clip_match")):
            match = f"{quote(captions.measure('clip_match'))}::DOUBLE"
            ranks |= {"worst match": match, "best match": f"-{match}"}
        for kind, rank in ranks.items():
            picks.append(
                f"(SELECT {literal(captions.column)} AS of_column, {len(picks)} AS number, {literal(kind)} AS kind, *, "
                f"row_number() OVER (ORDER BY rank, clip_id) AS place FROM (SELECT {rank} AS rank, clip_id, "
                f"{words} AS words, {repetition} AS repetition, {match} AS match, kept FROM audited "
                f"WHERE {words} IS NOT NULL ORDER BY 1 NULLS LAST, 2 LIMIT {SAMPLES}))"
            )
    texts = " UNION ALL ".join(
        f"SELECT {literal(each.column)} AS of_column, clip_id, substr({quote(each.column)}, 1, {SHOWN}) AS text "
        f"FROM {_done_sql(each, subject)} WHERE clip_id IN (SELECT clip_id FROM picked)"
        for each in subject.captions
    )
    return f"""
        WITH picked AS MATERIALIZED ({" UNION ALL ".join(picks)})
        SELECT of_column, kind, clip_id, words, repetition, match, kept, text
        FROM picked JOIN ({texts}) USING (of_column, clip_id) ORDER BY number, place"""
