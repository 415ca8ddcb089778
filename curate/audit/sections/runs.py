"""What made the catalog: runs, settings and model revisions, and the time that was recorded."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.subject import Subject
from curate.catalog.gates import literal, quote

MOST = 200  # runs


def figures(subject: Subject) -> Iterator[Figure]:
    yield subject.figure(
        "runs.history",
        "Runs",
        f"""
        SELECT run_id, recipe, status, engine, started_at, ended_at,
            json_extract(counts, '$.listed')::BIGINT AS listed, json_extract(counts, '$.done')::BIGINT AS done,
            json_extract(counts, '$.failed')::BIGINT AS failed, json_extract(counts, '$.kept')::BIGINT AS kept,
            json_extract(counts, '$.dropped')::BIGINT AS dropped, json_extract(counts, '$.seconds')::DOUBLE AS seconds
        FROM runs ORDER BY started_at DESC, run_id LIMIT {MOST}""",
        f"the last {MOST}; done, failed, kept and dropped are those of the run",
    )
    yield _settings(subject)
    yield _models(subject)
    yield subject.figure(
        "runs.stage_seconds",
        "CPU time by recipe and stage, as the runs recorded it",
        """
        SELECT recipe, stage, count(*) AS runs, sum(seconds) / 3600 AS cpu_hours FROM (
            SELECT recipe, unnest(json_keys(counts, '$.stage_seconds')) AS stage,
                json_extract(counts, '$.stage_seconds."' || stage || '"')::DOUBLE AS seconds
            FROM runs WHERE counts IS NOT NULL)
        GROUP BY ALL ORDER BY cpu_hours DESC, recipe, stage""",
        "of runs that ended by themselves, all attempts together",
    )
    yield subject.figure(
        "runs.time",
        "Time of the runs, and of the decode pass over the sources that the catalog has now",
        """
        SELECT (SELECT sum(json_extract(counts, '$.seconds')::DOUBLE) / 3600 FROM runs) AS wall_hours,
            (SELECT sum(cpu_seconds) / 3600 FROM sources) AS decode_cpu_hours,
            (SELECT sum(cpu_seconds) / nullif(sum(duration_s) / 60, 0) FROM sources WHERE status = 'done')
                AS cpu_seconds_per_minute_of_video""",
    )


def _settings(subject: Subject) -> Figure:
    """For each table the hashes of settings in its rows, and whether the last run of it has the same."""
    tables = ["sources", *(name for name in subject.stage_tables if "settings" in subject.tables[name])]
    parts = " UNION ALL ".join(
        f"SELECT {literal(name)} AS table_name, settings, recipe, count(*) AS rows, min(committed_at) AS first, "
        f"max(committed_at) AS last FROM {quote(name)} GROUP BY ALL"
        for name in tables
    )
    return subject.figure(
        "runs.settings",
        "Settings that made the rows",
        f"""
        WITH latest AS (SELECT key AS table_name, arg_max(value, started_at) AS settings FROM (
            SELECT started_at, unnest(json_keys(settings)) AS key,
                json_extract_string(settings, '$."' || key || '"') AS value FROM runs) GROUP BY 1)
        SELECT made.*, coalesce(made.settings = latest.settings, false) AS of_the_last_run
        FROM ({parts}) AS made LEFT JOIN latest USING (table_name) ORDER BY table_name, last DESC, settings""",
        "several hashes of one table: its rows were made by different settings",
    )


def _models(subject: Subject) -> Figure:
    """The pairs of columns that name a model and its revision, and the contracts of latents."""
    parts = []
    for name in subject.stage_tables:
        columns = subject.tables[name]
        for column in columns:
            model, revision = quote(column), column.removesuffix("model") + "revision"
            if column == "model" or column.endswith("_model"):
                named, shown = model, quote(revision) if revision in columns else "NULL::VARCHAR"
            elif column == "contract" or column.endswith("_contract"):
                named, shown = f"json_extract_string({model}, '$.vae')", f"md5({model})"
            else:
                continue
            parts.append(
                f"SELECT {literal(name)} AS table_name, {literal(column)} AS column_name, {named} AS model, "
                f"{shown} AS revision, count(*) AS clips FROM {quote(name)} WHERE {model} IS NOT NULL GROUP BY ALL"
            )
    title = "Models that made columns, with their revisions"
    if not parts:
        return subject.absent("runs.models", title, "a stage with a model")
    text = f"SELECT * FROM ({' UNION ALL '.join(parts)}) ORDER BY table_name, column_name, clips DESC, model, revision"
    return subject.figure("runs.models", title, text, "of latents: the VAE of the contract, and the contract's hash")
