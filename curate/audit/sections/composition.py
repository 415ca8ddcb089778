"""Whose the clips are and what they show: by source, rights, language, caption model, concept."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.domains import TOP_NOTE, top_domains_sql
from curate.audit.figure import Figure
from curate.audit.groups import SOURCE_TITLES, groups
from curate.audit.ranked import REST_NOTE, ranked_sql
from curate.audit.subject import Subject

TOP_SOURCES = 50


def figures(subject: Subject) -> Iterator[Figure]:
    yield subject.figure(
        "composition.source",
        "The sources with most hours of clips",
        f"""
        WITH most AS (SELECT source_id, clips, seconds, kept_clips, kept_seconds, bytes FROM audited_sources
            ORDER BY seconds DESC, clips DESC, source_id LIMIT {TOP_SOURCES})
        SELECT source_id, uri, most.clips, seconds / 3600 AS hours, kept_clips, kept_seconds / 3600 AS kept_hours,
            most.bytes FROM most JOIN sources USING (source_id) ORDER BY seconds DESC, most.clips DESC, source_id""",
        f"the first {TOP_SOURCES}",
    )
    known = {group.name: group for group in groups(subject)}
    weighted = subject.has("weight")
    for name, title in SOURCE_TITLES.items():
        if name not in known:
            yield subject.absent(f"composition.{name}", f"By {title}", f"the column {name}")
    for group in known.values():
        yield subject.figure(
            f"composition.{group.name}", f"By {group.title}", ranked_sql(group, weighted), REST_NOTE
        )  # fmt: skip
    if not subject.captions:
        yield subject.absent("composition.caption_language", "By language of the captions", "a column of captions")
    if "concept" not in known:
        yield subject.absent("composition.concept", "By concept", "the column concept (the stage clusters)")
    title = "The tenth of the domains with most content"
    if "domain" not in subject.source_columns:
        yield subject.absent("composition.domain_top", title, "the column domain")
        return
    yield subject.figure("composition.domain_top", title, top_domains_sql(), TOP_NOTE)
