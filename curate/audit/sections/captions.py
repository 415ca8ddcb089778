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
    samples = ("captions.samples", "Samples of captions")
    if not subject.captions:
        yield subject.absent(*texts, "a column of captions")
        yield subject.absent(*samples, "a column of captions")
        return
    parts = " UNION ALL ".join(_texts_sql(number, each, subject) for number, each in enumerate(subject.captions))
    yield subject.figure(
        *texts,
        f"SELECT * EXCLUDE (number) FROM ({parts}) ORDER BY number",
        f"different: texts that differ; repetitive: at least {LOOPING} of the word triples stood in the text before; "
        "their distributions are with the signals",
    )
    yield subject.figure(*samples, _samples_sql(subject), f"texts are cut after {SHOWN} characters")


def _texts_sql(number: int, captions: Captions, subject: Subject) -> str:
    def measured(name: str, sql: str) -> str:
        return sql.format(quote(captions.measure(name))) if subject.has(captions.measure(name)) else "NULL"

    there = f"count({quote(captions.measure('hash'))})"
    return f"""
        SELECT {number} AS number, {literal(captions.column)} AS of_column, {there} AS clips,
            count(DISTINCT {quote(captions.measure("hash"))}) AS different,
            {measured("words", "avg({0})")} AS words_mean, {measured("words", "median({0})")} AS words_median,
            {measured("repetition", f"count(*) FILTER ({{0}} >= {LOOPING})")} AS repetitive,
            {measured("truncated", "count(*) FILTER ({0})")} AS truncated,
            {measured("refusal", "count(*) FILTER ({0})")} AS refusals,
            {measured("boilerplate", "count(*) FILTER ({0})")} AS boilerplate,
            {measured("clip_match", "median({0})")}::DOUBLE AS match_median,
            {measured("clip_match", "quantile_cont({0}, 0.05)")}::DOUBLE AS match_q05
        FROM audited"""


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
                f"WHERE {quote(captions.measure('hash'))} IS NOT NULL ORDER BY 1 NULLS LAST, 2 LIMIT {SAMPLES}))"
            )
    texts = " ".join(f"WHEN {literal(each.column)} THEN {quote(each.column)}" for each in subject.captions)
    return f"""
        WITH picked AS ({" UNION ALL ".join(picks)})
        SELECT of_column, picked.kind, clip_id, picked.words, picked.repetition, picked.match, picked.kept,
            substr(CASE of_column {texts} END, 1, {SHOWN}) AS text
        FROM picked JOIN (SELECT clip_id, {", ".join(quote(each.column) for each in subject.captions)} FROM clips)
            USING (clip_id)
        ORDER BY picked.number, picked.place"""
