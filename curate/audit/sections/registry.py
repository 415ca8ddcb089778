"""All sections of an audit, in their order. Adding one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from curate.audit.figure import Figure
from curate.audit.sections import (
    against,
    captions,
    composition,
    concentration,
    counterfactual,
    duplicates,
    examples,
    failures,
    funnel,
    leakage,
    media,
    rights,
    runs,
    signals,
    totals,
    unknowns,
    weights,
)
from curate.audit.subject import Subject


@dataclass(frozen=True)
class SectionMaker:
    """A section that is not computed yet."""

    name: str
    title: str
    figures: Callable[[Subject], Iterator[Figure]]


SECTIONS = (
    SectionMaker("totals", "Totals", totals.figures),
    SectionMaker("funnel", "The funnel", funnel.figures),
    SectionMaker("counterfactual", "The counterfactual funnel", counterfactual.figures),
    SectionMaker("signals", "Signals", signals.figures),
    SectionMaker("media", "Duration, size and formats", media.figures),
    SectionMaker("composition", "Composition", composition.figures),
    SectionMaker("rights", "Rights", rights.figures),
    SectionMaker("concentration", "Concentration", concentration.figures),
    SectionMaker("duplicates", "Duplicates", duplicates.figures),
    SectionMaker("unknown", "What is unknown", unknowns.figures),
    SectionMaker("captions", "Captions", captions.figures),
    SectionMaker("leakage", "Leakage", leakage.figures),
    SectionMaker("against", "Compared with", against.figures),
    SectionMaker("examples", "Clips to look at", examples.figures),
    SectionMaker("failures", "Failures", failures.figures),
    SectionMaker("weights", "What a trainer sees", weights.figures),
    SectionMaker("runs", "Runs, models, time", runs.figures),
)
