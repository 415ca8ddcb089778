"""The funnel: where every source and clip stays on its way from the listing to the trainer, and each hour is lost."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.subject import Subject
from curate.catalog.gates import literal, quote
from curate.run.listed import list_again
from curate.shards.inventory import tables_with_shards

OUT_OF_REACH = 3  # inputs that are named
LENGTH = "coalesce(TRY_CAST(duration_s AS DECIMAL(18, 6)), 0)"  # of a source, in seconds


def figures(subject: Subject) -> Iterator[Figure]:
    yield subject.figure(
        "funnel.sources",
        "Sources by what came of them",
        f"""
        SELECT CASE WHEN status = 'failed' THEN 'failed' WHEN clips > 0 THEN 'done' ELSE 'done, without a clip' END
            AS state, CASE WHEN status = 'failed' OR clips = 0 THEN coalesce(split_part(reason, ':', 1), 'unknown')
            ELSE '' END AS reason,
            count(*) AS sources, sum({LENGTH}) AS seconds, sum({LENGTH}) / 3600 AS hours
        FROM sources GROUP BY ALL ORDER BY state, sources DESC, reason""",
        "seconds of a failed source are those that its header states, 0 where it could not be read",
    )
    yield _accounts(subject)
    yield subject.figure(
        "funnel.listed",
        "Sources that the last run of each recipe and input listed",
        """
        SELECT recipe, inputs, max(started_at) AS started_at,
            arg_max(json_extract(counts, '$.listed')::BIGINT, started_at) AS listed,
            arg_max(json_extract_string(counts, '$.left_out'), started_at) AS left_out
        FROM runs WHERE json_extract(counts, '$.listed') IS NOT NULL GROUP BY ALL ORDER BY recipe, inputs""",
        "as the runs recorded it; inputs may overlap, and funnel.accounts has what all of them name now",
    )
    yield subject.figure(
        "funnel.removed",
        "Sources and clips that were removed (purged), by kind of record",
        "SELECT kind, count(*) AS removals, min(removed_at) AS first, max(removed_at) AS last FROM removals "
        "GROUP BY kind ORDER BY kind",
        "source: one with all of its clips; clip: of a source that stayed; copy, named: what may not come back",
    )
    yield subject.figure(
        "funnel.hours",
        "Hours of video from sources to clips",
        f"""
        WITH clips AS (SELECT source_id, sum(seconds) AS clips_s FROM judged GROUP BY source_id),
            each AS (SELECT coalesce(length_s, 0) AS length_s, coalesce(clips_s, 0) AS clips_s FROM clips FULL JOIN
                (SELECT source_id, {LENGTH} AS length_s FROM sources WHERE status = 'done' AND media = 'video')
                USING (source_id)),
            summed AS (SELECT coalesce(sum(length_s), 0) AS all_s, coalesce(sum(clips_s), 0) AS clips_s,
                coalesce(sum(greatest(length_s - clips_s, 0)), 0) AS none_s FROM each)
        SELECT unnest(['in sources that are done', 'in clips beyond their source', 'in no clip',
                'in clips']) AS step,
            unnest([all_s, none_s + clips_s - all_s, none_s, clips_s]) AS seconds,
            unnest([all_s, none_s + clips_s - all_s, none_s, clips_s]) / 3600 AS hours
        FROM summed""",
        "the first two sum up to the last two exactly; in no clip: transitions, spans shorter than a clip may be, what "
        "could not be decoded; beyond: each length is rounded to the microsecond, so the clips of a source may be some "
        "microseconds longer than it; more would be clips of a source that is not done, or clips that overlap",
    )
    yield _clips(subject)
    yield _not_encoded(subject)


def _accounts(subject: Subject) -> Figure:
    """listed = done + failed + pending + removed, by listing the inputs of all runs again, beside what the tables hold.

    A listing is no query: its counts stand in the SQL as they were found.
    """
    listed = list_again(subject.sql, subject.catalog)
    counts = {"done": listed.done, "failed": listed.failed, "pending": listed.pending, "removed": listed.removed}
    found = ", ".join(
        f"({number}, '{state}', {count if listed.known else 'NULL'}::BIGINT)"
        for number, (state, count) in enumerate(counts.items(), 1)
    )
    note = (
        "listed: named by the inputs of the runs at the time of the audit; not listed: in the catalog, or purged, and "
        "named by no input any more; the last row sums up the others"
    )
    for line in listed.out_of_reach[:OUT_OF_REACH]:
        note += f"; not known, since an input is out of reach: {line}"
    return subject.figure(
        "funnel.accounts",
        "Every source that the inputs of the runs name, by what came of it: done, failed, pending or removed",
        f"""
        WITH listed(step, state, listed_sources) AS (VALUES {found}),
            there AS (SELECT status AS state, count(*) AS sources FROM sources GROUP BY 1
                UNION ALL SELECT 'removed', count(DISTINCT digest) FROM removals WHERE kind IN ('source', 'copy')),
            beside AS (SELECT step, state, listed_sources, CASE WHEN state = 'pending' THEN listed_sources
                ELSE coalesce(sources, 0) END AS sources FROM listed LEFT JOIN there USING (state)),
            summed AS (SELECT * FROM beside UNION ALL
                SELECT {len(counts) + 1}, 'all', CASE WHEN count(listed_sources) = count(*) THEN sum(listed_sources)
                    END, CASE WHEN count(sources) = count(*) THEN sum(sources) END FROM beside)
        SELECT state, CAST(listed_sources AS BIGINT) AS listed_sources,
            CAST(sources - listed_sources AS BIGINT) AS not_listed_sources, CAST(sources AS BIGINT) AS sources
        FROM summed ORDER BY step""",
        note,
    )


def _clips(subject: Subject) -> Figure:
    """Each clip is lost at one step at most, so what is lost at all steps and what is left sum to all clips."""
    steps = [(f"dropped by {gate.name}", f"NOT {gate.passes}") for gate in subject.gates]
    steps.append(("kept, but not encoded", "NOT encoded"))
    if subject.chosen.sql is not None:
        steps.append(("encoded, but not selected", "NOT selected"))
    if subject.has("weight"):
        steps.append(("selected, but of weight 0", "coalesce(weight, 0) = 0"))
    cases = " ".join(f"WHEN {where} THEN {number}" for number, (_, where) in enumerate(steps, 1))
    names = ", ".join(f"({number}, {literal(name)})" for number, (name, _) in enumerate(steps, 1))
    return subject.figure(
        "funnel.clips",
        "Clips from the cut to the trainer: each is lost at the first step that stops it",
        f"""
        WITH steps(step, name) AS (VALUES (0, 'clips found'), {names}),
            lost AS (SELECT CASE {cases} ELSE {len(steps) + 1} END AS step, count(*) AS clips, sum(seconds) AS seconds
                FROM judged GROUP BY 1),
            counted AS (SELECT step, name, coalesce(clips, 0) AS lost_clips, coalesce(seconds, 0) AS lost_seconds
                FROM steps LEFT JOIN lost USING (step)),
            every AS (SELECT coalesce(sum(clips), 0) AS clips, coalesce(sum(seconds), 0) AS seconds FROM lost)
        SELECT name AS step, lost_clips, lost_seconds, lost_seconds / 3600 AS lost_hours,
            every.clips - sum(lost_clips) OVER upto AS clips_left,
            every.seconds - sum(lost_seconds) OVER upto AS seconds_left,
            (every.seconds - sum(lost_seconds) OVER upto) / 3600 AS hours_left
        FROM counted, every WINDOW upto AS (ORDER BY counted.step) ORDER BY counted.step""",
    )


def _not_encoded(subject: Subject) -> Figure:
    """Why kept clips have no latents: a stage on their way failed, or none has seen them yet."""
    title = "Kept clips that are not encoded, by reason"
    shards = [name for name in tables_with_shards(subject.sql) if "reason" in subject.tables[name]]
    if not shards:
        return subject.absent("funnel.not_encoded", title, "a table of latents")
    failed = " UNION ALL ".join(
        f"SELECT clip_id, coalesce(split_part(reason, ':', 1), 'unknown') AS reason FROM {quote(name)} "
        "WHERE status = 'failed'"
        for name in shards
    )
    return subject.figure(
        "funnel.not_encoded",
        title,
        f"""
        SELECT coalesce('failed: ' || failed.reason, 'not tried') AS reason, count(*) AS clips,
            sum(seconds) AS seconds, sum(seconds) / 3600 AS hours
        FROM judged
        LEFT JOIN (SELECT clip_id, min(reason) AS reason FROM ({failed}) GROUP BY 1) AS failed USING (clip_id)
        WHERE kept AND NOT encoded GROUP BY 1 ORDER BY clips DESC, reason""",
    )
