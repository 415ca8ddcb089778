"""A datasheet: the questions of Gebru et al., answered by figures as far as they go, and by people in the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from curate.audit.documents.eu_summary import TODO
from curate.audit.documents.facts import Facts
from curate.audit.documents.markdown import escaped, shown, table
from curate.audit.documents.questions import QUESTIONS
from curate.audit.documents.settings import DocumentSettings

Lines = Iterator[str]
Rows = list[tuple[Any, ...]]
COLUMNS = 10  # rows of what is unknown


def datasheet(facts: Facts, settings: DocumentSettings) -> str:
    """The datasheet in Markdown. What neither figures nor settings answer is marked."""
    lines = [
        f"# Datasheet of {escaped(settings.dataset.name or facts.name)}",
        "",
        f"Numbers count the {facts.counted} ({shown(facts.clips)}) where nothing else is said, and are cells of the "
        f"figures of `audit.json` that are named beside them. `{TODO}` marks what only people know.",
    ]
    for section, questions in groupby(QUESTIONS, key=lambda each: each.section):
        lines.append(f"\n## {section}")
        for each in questions:
            said, counted = settings.answer(each.key), list(ANSWERS.get(each.key, _nothing)(facts, settings))
            lines += [f"\n### {each.question}", *([] if said is None else ["", f"Provider: {escaped(said)}"]), *counted]
            if said is None and each.key.endswith("_other"):
                lines.append("\nNothing is said.")
            elif said is None and (not counted or each.key in PARTLY):
                lines.append(f"\n{TODO} (settings: `datasheet.{each.key}`)")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _nothing(facts: Facts, settings: DocumentSettings) -> Lines:
    yield from ()


def _creators(facts: Facts, settings: DocumentSettings) -> Lines:
    if settings.provider.name:
        yield f"\n{escaped(settings.provider.name)} (settings: `provider.name`)."


def _instances(facts: Facts, settings: DocumentSettings) -> Lines:
    yield "\nAn instance is a clip: a span of a video, or an image."
    head = ("Kind", "Sources", "Clips", "Hours")
    rows = [(r["media"], facts.of(r, "sources"), facts.of(r, "clips"), facts.of(r, "hours"))
            for r in facts.rows("rights.media")]  # fmt: skip
    yield from _figure("rights.media", head, rows)


def _counts(facts: Facts, settings: DocumentSettings) -> Lines:
    total = facts.total
    yield (
        f"\n{facts.amount(total)}, of {shown(facts.of(total, 'sources'))} sources (figure `totals.clips`). Of all "
        f"{'' if facts.whole else 'selected '}clips ({shown(total['clips'])}) the gates keep "
        f"{shown(total['kept_clips'])}; {shown(total['encoded_clips'])} are encoded."
    )
    for record in facts.records("weights.samples"):
        yield (
            f"\nSamples are weighted: {shown(record['samples'])} of total weight {shown(record['weight'])}, of which "
            f"{shown(record['of_weight_0'])} have weight 0; as diverse as {shown(record['effective_samples'])} of "
            "equal weight (figure `weights.samples`)."
        )
    yield from _figure("composition.concept", ("Concept", "Clips", "Hours"), facts.composition("composition.concept"))


def _sample(facts: Facts, settings: DocumentSettings) -> Lines:
    yield "\nThe clips are what is left of all that was found:"
    rows: Rows = [(r["step"], r["lost_clips"], r["clips_left"], r["hours_left"]) for r in facts.records("funnel.clips")]
    yield from _figure("funnel.clips", ("Step", "Clips lost", "Clips left", "Hours left"), rows)
    rows = [(r["state"], r["reason"], r["sources"]) for r in facts.records("funnel.sources")]
    yield from _figure("funnel.sources", ("Sources", "Reason", "Number"), rows)


def _contents(facts: Facts, settings: DocumentSettings) -> Lines:
    signals = [r["signal"] for r in facts.records("signals.quantiles")]
    yield (
        "\nA span of a source (start and end), its picture size and frame rate, and what was measured of it "
        f"(figure `signals.quantiles`): {escaped(', '.join(signals)) or 'nothing'}."
    )
    for name, title in (("resolution", "Resolution"), ("fps", "Frames per second")):
        rows = [(r["value"], r["values"], facts.of(r, "clips")) for r in facts.rows(f"media.{name}")]
        yield from _figure(f"media.{name}", (title, "Values", "Clips"), rows)


def _labels(facts: Facts, settings: DocumentSettings) -> Lines:
    rows: Rows = [(r["of_column"], r["source"], r["model"], r["revision"], facts.of(r, "clips"), facts.of(r, "words"))
            for r in facts.rows("captions.models")]  # fmt: skip
    yield "\nCaptions, by who wrote them:" if rows else "\nThere are no captions (figure `captions.models`)."
    yield from _figure("captions.models", ("Column", "Source", "Model", "Revision", "Clips", "Words"), rows)
    rows = [(r["of_column"], r["truncated"], r["refusals"], r["repetitive"]) for r in facts.records("captions.texts")]
    yield from _figure("captions.texts", ("Column", "Truncated", "Refusals", "Repetitive"), rows)


def _missing(facts: Facts, settings: DocumentSettings) -> Lines:
    missing = [r for r in facts.records("unknown.clips") if r["unknown_clips"]]
    if not missing:
        yield "\nNo measured column lacks a value (figure `unknown.clips`)."
    else:
        every = "all clips" if facts.whole else "all selected clips"
        yield f"\nColumns with most clips without a value, of {every}; the first {COLUMNS}:"
    rows: Rows = [(r["column_name"], r["unknown_clips"]) for r in missing[:COLUMNS]]
    yield from _figure("unknown.clips", ("Column", "Clips without a value"), rows)
    rows = [(r["reason"], r["sources"]) for r in facts.records("failures.sources")]
    yield from _figure("failures.sources", ("Sources that failed", "Number"), rows)


def _relations(facts: Facts, settings: DocumentSettings) -> Lines:
    yield "\nClips name their source and, where they were judged, the cluster of their duplicates and their concept."
    rows = [(r["kind"], r["clips"], r["redundant_clips"]) for r in facts.records("duplicates.kinds")]
    yield from _figure("duplicates.kinds", ("Duplicates", "Clips", "Redundant"), rows)


def _splits(facts: Facts, settings: DocumentSettings) -> Lines:
    rows: Rows = [(r["part"], r["sources"], r["clips"], r["hours"]) for r in facts.records("leakage.parts")]
    yield from _figure("leakage.parts", ("Part", "Sources", "Clips", "Hours"), rows)
    rows = [(r["one"], r["other"], r["kind"], r["shared"]) for r in facts.records("leakage.shared")]
    yield from _figure("leakage.shared", ("One part", "Other part", "What they share", "Number"), rows)


def _noise(facts: Facts, settings: DocumentSettings) -> Lines:
    rows: Rows = [(r["kind"], r["clips"], r["redundant_clips"], r["kept_redundant_clips"])
            for r in facts.records("duplicates.kinds")]  # fmt: skip
    yield from _figure(
        "duplicates.kinds", ("Duplicates", "Clips", "Redundant", "Redundant and kept by the gates"), rows
    )
    rows = [(r["table_name"], r["reason"], r["clips"]) for r in facts.records("failures.stages")]
    yield from _figure("failures.stages", ("Stage", "Reason", "Clips"), rows)


def _self_contained(facts: Facts, settings: DocumentSettings) -> Lines:
    yield "\nClips are spans of source files, which stay where they are; latents in shards stand by themselves."
    yield from _figure("composition.domain", ("Domain", "Clips", "Hours"), facts.composition("composition.domain"))


def _acquired(facts: Facts, settings: DocumentSettings) -> Lines:
    rows: Rows = [(r["source_kind"], r["media"], facts.of(r, "sources"), facts.of(r, "clips"), facts.of(r, "hours"))
            for r in facts.rows("rights.kinds")]  # fmt: skip
    yield from _figure("rights.kinds", ("Kind of source", "Media", "Sources", "Clips", "Hours"), rows)
    rows = [(r["source_kind"], r["dataset"], r["dataset_licence"], facts.of(r, "clips"))
            for r in facts.rows("rights.datasets")]  # fmt: skip
    yield from _figure("rights.datasets", ("Kind of source", "Dataset", "Licence", "Clips"), rows)


def _timeframe(facts: Facts, settings: DocumentSettings) -> Lines:
    rows = [(r["media"], r["first_added"], r["last_added"]) for r in facts.rows("rights.media")]
    yield from _figure("rights.media", ("Media", "First source in the catalog", "Last"), rows)


def _consent(facts: Facts, settings: DocumentSettings) -> Lines:
    yield from _figure("composition.consent", ("Consent", "Clips", "Hours"), facts.composition("composition.consent"))
    rows = [
        (r["signal"], r["answer"], facts.of(r, "clips"), r["last_checked"] or "") for r in facts.rows("rights.opt_outs")
    ]
    yield from _figure("rights.opt_outs", ("Opt-out signal", "Answer", "Clips", "Last checked"), rows)


def _revocation(facts: Facts, settings: DocumentSettings) -> Lines:
    rows = [(r["kind"], r["removals"], r["last"]) for r in facts.records("funnel.removed")]
    if rows:
        yield "\nTaken out on request so far:"
    yield from _figure("funnel.removed", ("Removed", "Removals", "Last"), rows)


def _preprocessing(facts: Facts, settings: DocumentSettings) -> Lines:
    rows: Rows = [(r["gate"], r["condition"], r["dropped_clips"]) for r in facts.records("counterfactual.gates")]
    yield (
        "\nVideos are cut into clips and measured; clips that a gate does not let pass are not used."
        if rows
        else ("\nVideos are cut into clips and measured. No gate is in force (figure `counterfactual.gates`).")
    )
    yield from _figure("counterfactual.gates", ("Gate", "Keeps", "Drops clips"), rows)
    rows = [(r["table_name"], r["model"], r["revision"], r["clips"]) for r in facts.records("runs.models")]
    yield from _figure("runs.models", ("Table", "Model", "Revision", "Clips of the whole catalog"), rows)


def _raw(facts: Facts, settings: DocumentSettings) -> Lines:
    yield "\nNothing is changed or moved: a clip is a span of its source."


def _software(facts: Facts, settings: DocumentSettings) -> Lines:
    yield "\nclipmill. The catalog keeps each run's recipe, settings and versions (figure `runs.history`)."


def _licence(facts: Facts, settings: DocumentSettings) -> Lines:
    if settings.dataset.licence:
        yield f"\n{escaped(settings.dataset.licence)} (settings: `dataset.licence`)."


def _restrictions(facts: Facts, settings: DocumentSettings) -> Lines:
    for name, title in (
        ("licence", "Licence of the sources"),
        ("dataset_licence", "Licence of the datasets they are of"),
    ):
        yield from _figure(f"composition.{name}", (title, "Clips", "Hours"), facts.composition(f"composition.{name}"))
    rows = [(r["answer"], facts.of(r, "sources"), facts.of(r, "clips")) for r in facts.rows("rights.reserved")]
    yield from _figure("rights.reserved", ("Strictest opt-out signal", "Sources", "Clips"), rows)


def _contact(facts: Facts, settings: DocumentSettings) -> Lines:
    if settings.provider.contact:
        yield f"\n{escaped(settings.provider.contact)} (settings: `provider.contact`)."


def _old_versions(facts: Facts, settings: DocumentSettings) -> Lines:
    parent = (facts.about.get("described") or {}).get("parent")
    if parent:
        yield f"\nIt replaces the dataset {escaped(parent['name'])} (dataset.json)."


def _figure(id: str, head: tuple[str, ...], rows: Rows) -> Lines:
    """A table with the figure that its cells are of; nothing without a row."""
    if rows:
        yield f"\nFigure `{id}`:"
        yield from table(head, rows)


ANSWERS: dict[str, Callable[[Facts, DocumentSettings], Lines]] = {
    "creators": _creators, "instances": _instances, "counts": _counts, "sample": _sample, "contents": _contents,
    "labels": _labels, "missing": _missing, "relations": _relations, "splits": _splits, "noise": _noise,
    "self_contained": _self_contained, "acquired": _acquired, "timeframe": _timeframe, "consent": _consent,
    "revocation": _revocation, "preprocessing": _preprocessing, "raw": _raw, "software": _software,
    "licence": _licence, "restrictions": _restrictions, "contact": _contact, "old_versions": _old_versions,
}  # fmt: skip
# Questions that figures answer in part only.
PARTLY = {"sample", "splits", "noise", "acquired", "timeframe", "consent", "revocation", "restrictions", "old_versions"}
