"""All sections of an audit, in their order. Adding one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from curate.audit.figure import Figure
from curate.audit.sections import composition, concentration, counterfactual, funnel, media, signals, totals
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
    SectionMaker("concentration", "Concentration", concentration.figures),
)
