"""How much there is: clips, hours, bytes, sources."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.subject import CLIPS, KEPT, Subject


def figures(subject: Subject) -> Iterator[Figure]:
    yield subject.figure(
        "totals.clips",
        "Clips that are selected, and what the gates keep of them",
        f"SELECT {CLIPS}, {KEPT}, count(DISTINCT source_id) AS sources, "
        "count(DISTINCT source_id) FILTER (kept) AS kept_sources, "
        "count(*) FILTER (media = 'image') AS images, count(*) FILTER (encoded) AS encoded_clips, "
        "coalesce(sum(seconds) FILTER (encoded), 0) / 3600 AS encoded_hours FROM audited",
    )
    yield subject.figure(
        "totals.sources",
        "Sources of the catalog",
        "SELECT status, media, count(*) AS sources, coalesce(sum(duration_s), 0) / 3600 AS hours, "
        "sum(bytes) AS bytes, coalesce(sum(clips), 0) AS clips FROM sources GROUP BY ALL ORDER BY status, media",
    )
    yield subject.figure(
        "totals.selected_sources",
        "Sources of the selected clips",
        "SELECT count(*) AS sources, coalesce(sum(duration_s), 0) / 3600 AS hours, sum(bytes) AS bytes FROM sources "
        "WHERE source_id IN (SELECT source_id FROM audited)",
        "whole sources, also the parts of them that no clip shows",
    )
    if subject.chosen.sql is not None:
        yield subject.figure(
            "totals.chosen",
            "Clips that are selected and those of them that the catalog has",
            "SELECT (SELECT count(*) FROM chosen) AS chosen_clips, count(*) AS clips_in_the_catalog, "
            "count(*) FILTER (kept) AS kept_clips, count(*) FILTER (NOT kept) AS dropped_clips, "
            "count(*) FILTER (NOT encoded) AS not_encoded_clips FROM audited",
            "dropped: by the gates in force now, though selected",
        )
