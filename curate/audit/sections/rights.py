"""Whose the clips are: kinds of sources, datasets they come from, crawled domains, what their owners said of training.

`composition` counts each column by itself; here are those that a form or a licence asks for together.
"""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.domains import TOP_NOTE, top_domains_sql
from curate.audit.figure import Figure
from curate.audit.subject import Subject
from curate.catalog.gates import literal
from stages.shards.rights import SIGNALS, signal_names

MOST = 500  # rows of datasets
COUNTS = """count(*) AS sources, coalesce(sum(clips), 0)::BIGINT AS clips, coalesce(sum(seconds), 0) / 3600 AS hours,
            count(*) FILTER (kept_clips > 0) AS kept_sources, coalesce(sum(kept_clips), 0)::BIGINT AS kept_clips,
            coalesce(sum(kept_seconds), 0) / 3600 AS kept_hours"""
FACTS = "(SELECT source_id, media, committed_at FROM sources) AS facts"


def figures(subject: Subject) -> Iterator[Figure]:
    yield _media(subject)
    yield from _kinds(subject)
    yield from _opt_outs(subject)


def _media(subject: Subject) -> Figure:
    has_audio = "has_audio" if "has_audio" in subject.source_columns else "NULL::BOOLEAN"
    return subject.figure(
        "rights.media",
        "Videos and images, and when their sources came into the catalog",
        f"""
        SELECT media, {COUNTS}, count({has_audio}) AS sound_known,
            count(*) FILTER ({has_audio}) AS with_sound, count(*) FILTER ({has_audio} AND kept_clips > 0)
            AS kept_with_sound, sum(bytes)::BIGINT AS bytes,
            min(committed_at) AS first_added, max(committed_at) AS last_added
        FROM audited_sources LEFT JOIN {FACTS} USING (source_id) GROUP BY media ORDER BY media""",
        "bytes are those of whole sources; with_sound: sources with a sound track, of those of which it is known",
    )


def _kinds(subject: Subject) -> Iterator[Figure]:
    kinds = ("rights.kinds", "Sources by kind, videos and images apart")
    datasets = ("rights.datasets", "Datasets that sources come from, with their licence")
    domains = ("rights.crawled_domains", "The tenth of the crawled domains with most content")
    if "source_kind" not in subject.source_columns:
        for id, title in (kinds, datasets, domains):
            yield subject.absent(id, title, "the column source_kind")
        return
    yield subject.figure(
        *kinds,
        f"""
        SELECT source_kind, media, {COUNTS}, min(committed_at) AS first_added, max(committed_at) AS last_added
        FROM audited_sources LEFT JOIN {FACTS} USING (source_id) GROUP BY ALL ORDER BY source_kind, media""",
        "null: the kind is unknown",
    )
    named = [name for name in ("dataset", "dataset_licence") if name in subject.source_columns]
    if len(named) < 2:
        yield subject.absent(*datasets, "the columns dataset and dataset_licence")
    else:
        yield subject.figure(
            *datasets,
            f"""
            SELECT source_kind, dataset, dataset_licence, {COUNTS}, count(*) OVER () AS datasets
            FROM audited_sources WHERE dataset IS NOT NULL GROUP BY source_kind, dataset, dataset_licence
            ORDER BY sum(seconds) DESC, sum(clips) DESC, dataset, source_kind, dataset_licence LIMIT {MOST}""",
            f"at most {MOST} rows; the last column is the number of all",
        )
    if "domain" not in subject.source_columns:
        yield subject.absent(*domains, "the column domain")
        return
    whole = subject.chosen.sql is None
    what = "the clips that the gates keep" if whole else "the selected clips"
    yield subject.figure(
        *domains, top_domains_sql("source_kind = 'crawled'", kept=whole), f"of {what} of crawled sources; {TOP_NOTE}"
    )


def _opt_outs(subject: Subject) -> Iterator[Figure]:
    opt_outs = ("rights.opt_outs", "What owners said of training, by signal")
    reserved = ("rights.reserved", "The strictest that any signal says of a source")
    there = [signal for signal in SIGNALS if signal_names(signal)[0] in subject.source_columns]
    if not there:
        for id, title in (opt_outs, reserved):
            yield subject.absent(id, title, "a column of opt-out signals")
        return
    parts = " UNION ALL ".join(_signal_sql(number, signal) for number, signal in enumerate(there))
    yield subject.figure(
        *opt_outs,
        f"SELECT * EXCLUDE (number) FROM ({parts}) ORDER BY number, answer",
        "none found: somebody looked, and there was none; not checked: nobody looked; read_from: one of the places",
    )
    said = [signal_names(signal)[0] for signal in there]
    any_is = {answer: " OR ".join(f"{name} = {literal(answer)}" for name in said)
              for answer in ("not allowed", "constrained", "allowed", "none found")}  # fmt: skip
    cases = " ".join(f"WHEN {where} THEN {literal(answer)}" for answer, where in any_is.items())
    yield subject.figure(
        *reserved,
        f"""
        SELECT CASE {cases} ELSE 'not checked' END AS answer, {COUNTS}
        FROM audited_sources GROUP BY 1 ORDER BY 1""",
        "not allowed goes before constrained, allowed, none found, not checked",
    )


def _signal_sql(number: int, signal: str) -> str:
    value, read_from, checked = signal_names(signal)
    return f"""
        SELECT {number} AS number, {literal(signal)} AS signal, coalesce({value}, 'not checked') AS answer, {COUNTS},
            min({checked}) AS first_checked, max({checked}) AS last_checked, min({read_from}) AS read_from
        FROM audited_sources LEFT JOIN (SELECT source_id, {read_from}, {checked} FROM sources) AS said
            USING (source_id) GROUP BY answer"""
