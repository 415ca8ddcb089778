"""How much is unknown: for each column, how many clips or sources have no value in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from curate.audit.columns import GROUPS
from curate.audit.figure import Figure
from curate.audit.subject import Subject
from curate.catalog.gates import literal, quote


def figures(subject: Subject) -> Iterator[Figure]:
    measures = [name for each in subject.captions for name in each.measures if subject.has(name)]
    of_clips = ["width", "height", "fps", "damaged_frames", *subject.signals, *GROUPS, *measures]
    of_clips += [each.model for each in subject.captions if each.model is not None]
    shown = [name for name in dict.fromkeys(of_clips) if subject.has(name)]
    texts = {each.column: each.measure("words") for each in subject.captions}  # counted of each text
    named = {name: quote(name) for name in shown} | {name: quote(column) for name, column in texts.items()}
    yield subject.figure(
        "unknown.clips",
        "Clips without a value, by column",
        _unknown_sql(named, "audited", "clips"),
        "NULL: not measured, not computable, or of a stage that has not seen the clip",
    )
    if subject.gates:
        gates = {gate.name: gate.column for gate in subject.gates}
        title = "Clips of which a gate can't tell"
        yield subject.figure("unknown.gates", title, _unknown_sql(gates, "audited", "clips", "gate"))
    of_sources = {name: quote(name) for name in subject.tables["sources"]}
    done = "(SELECT * FROM sources WHERE status = 'done')"
    title = "Sources that are done without a value, by column"
    note = "of all sources of the catalog; reason and audio columns are empty where there is nothing to say"
    yield subject.figure("unknown.sources", title, _unknown_sql(of_sources, done, "sources"), note)


def _unknown_sql(columns: dict[str, str], relation: str, counted: str, named: str = "column_name") -> str:
    names, values = _list(map(literal, columns)), _list(f"count({column})" for column in columns.values())
    return f"""
        SELECT {named}, total - known AS unknown_{counted}, (total - known) / nullif(total, 0) AS unknown_share FROM (
            SELECT unnest({names}) AS {named}, unnest({values}) AS known, count(*) AS total FROM {relation})
        ORDER BY unknown_{counted} DESC, {named}"""


def _list(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"
