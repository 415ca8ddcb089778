"""What clips are grouped by: facts of their sources, such as the licence, and of themselves, such as the concept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curate.audit.columns import OPT_OUTS
from curate.audit.subject import Subject
from curate.catalog.gates import quote

SOURCE_TITLES = {
    "source_kind": "kind of source",
    "dataset": "dataset",
    "domain": "domain",
    "licence": "licence of the source",
    "dataset_licence": "licence of the dataset",
    "language": "language of the source",
    "consent": "consent",
} | {name: f"opt-out by {name.removeprefix('optout_')}" for name in OPT_OUTS}


@dataclass(frozen=True)
class Group:
    """A column by which clips are counted. Those of sources are counted source by source, which is quicker."""

    name: str  # in ids of figures
    title: str
    column: str  # SQL
    of_sources: bool

    @property
    def relation(self) -> str:
        return "audited_sources" if self.of_sources else "audited"

    def counts(self, weighted: bool = False) -> str:
        """A SELECT list: clips, seconds, kept_clips, kept_seconds, of sources their number, with `weighted` weight."""
        if self.of_sources:
            names = ["clips", "seconds", "kept_clips", "kept_seconds", *(["weight"] if weighted else [])]
            return ", ".join(["count(*) AS sources", *(f"coalesce(sum({name}), 0) AS {name}" for name in names)])
        listed = "count(*) AS clips, coalesce(sum(seconds), 0) AS seconds, count(*) FILTER (kept) AS kept_clips, "
        listed += "coalesce(sum(seconds) FILTER (kept), 0) AS kept_seconds"
        return listed + (", coalesce(sum(weight), 0) AS weight" if weighted else "")

    def fails(self, gate_column: str, passes: str) -> str:
        """SQL of the number of clips that a gate drops."""
        return f"sum(fails_{gate_column})" if self.of_sources else f"count(*) FILTER (NOT {passes})"


def groups(subject: Subject) -> Iterator[Group]:
    """The groups that the catalog knows of, those of rights first."""
    for name, title in SOURCE_TITLES.items():
        if name in subject.source_columns:
            yield Group(name, title, quote(name), of_sources=True)
    for captions in subject.captions:
        if subject.has(language := captions.measure("language")):
            yield Group(language, f"language of {captions.column}", quote(language), of_sources=False)
    for model in sorted({captions.model for captions in subject.captions if captions.model is not None}):
        yield Group(model, "model that wrote the captions", quote(model), of_sources=False)
    if (concept := concept_sql(subject)) is not None:
        yield Group("concept", "concept", concept, of_sources=False)


def concept_sql(subject: Subject) -> str | None:
    """SQL of a clip's concept: its number, and its name where it has one."""
    if not subject.has("concept"):
        return None
    if not subject.has("concept_name"):
        return "CAST(concept AS VARCHAR)"
    return "concept || coalesce(' ' || concept_name, '')"
