"""The domains with most content, by hours of clips and then by their number."""

from __future__ import annotations

TOP_DOMAINS = 10_000  # rows of the tenth of the domains with most hours
TOP_NOTE = (
    f"by hours of clips, then by clips, at most {TOP_DOMAINS:,} domains; bytes are those of whole sources; the last "
    "column is the number of all domains"
)


def top_domains_sql(where: str = "true", kept: bool = False) -> str:
    """Rows of the tenth of the domains with most content, of sources that meet a condition; with `kept` the clips
    that the gates keep count.
    """
    clips, seconds = ("kept_clips", "kept_seconds") if kept else ("clips", "seconds")
    return f"""
        WITH counted AS (SELECT domain, count(*) AS sources, count(*) FILTER (kept_clips > 0) AS kept_sources,
                sum(clips) AS clips, sum(seconds) AS seconds, sum(kept_clips) AS kept_clips,
                sum(kept_seconds) AS kept_seconds, sum(bytes) AS bytes
                FROM audited_sources WHERE domain IS NOT NULL AND {clips} > 0 AND {where} GROUP BY domain),
            placed AS (SELECT *, row_number() OVER (ORDER BY {seconds} DESC, {clips} DESC, domain) AS place,
                count(*) OVER () AS domains FROM counted)
        SELECT domain, sources, CAST(clips AS BIGINT) AS clips, seconds / 3600 AS hours,
            kept_sources, CAST(kept_clips AS BIGINT) AS kept_clips, kept_seconds / 3600 AS kept_hours,
            CAST(bytes AS BIGINT) AS bytes, domains
        FROM placed WHERE place <= least({TOP_DOMAINS}, ceil(domains / 10)) ORDER BY place"""
