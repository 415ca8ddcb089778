"""Distributions of every signal: quantiles, histograms of all and of kept clips, and the thresholds drawn into them."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.histogram import histogram_sql, value_range
from curate.audit.quantiles import QUANTILES, quantile
from curate.audit.subject import Subject
from curate.catalog.gates import literal, quote


def figures(subject: Subject) -> Iterator[Figure]:
    quantiles = ("signals.quantiles", "Signals: how they are distributed")
    if not subject.signals:
        yield subject.absent(*quantiles, "a signal (measure, score or match) of clips")
        return
    note = "quantiles are exact; the values of neighbours are interpolated"
    yield subject.figure(*quantiles, _quantiles_sql(), note)
    yield _thresholds(subject)
    for signal in subject.signals:
        drawn = [t.value for gate in subject.gates for t in gate.thresholds if t.is_of(signal)]
        title, id = f"{signal}: clips and kept clips by value", f"signals.histogram.{signal}"
        found = value_range(subject, signal, drawn, whole="INT" in subject.tables["clips"][signal])
        if found is None:
            yield subject.absent(id, title, f"a value of {signal} that is known")
        else:
            note = "the first and the last bar also hold what lies beyond their edges, up to least and greatest value"
            yield subject.figure(id, title, histogram_sql(quote(signal), found), note)


def _quantiles_sql() -> str:
    listed = ", ".join(f"{quantile(share)} AS q{round(100 * share):02d}" for share in QUANTILES)
    return f"""
        SELECT signal, known_clips, unknown_clips, least, {listed}, greatest, mean, deviation, kept_median
        FROM quantiles ORDER BY number"""


def _thresholds(subject: Subject) -> Figure:
    rows = [
        f"({number}, {literal(t.signal or '')}, {literal(gate.name)}, {literal(t.operator)}, {t.value!r}::DOUBLE)"
        for number, (gate, t) in enumerate((gate, t) for gate in subject.gates for t in gate.thresholds if t.signal)
    ]
    if not rows:
        return subject.absent("signals.thresholds", "Thresholds of signals", "a gate that compares a signal")
    return subject.figure(
        "signals.thresholds",
        "Thresholds of signals, by the gates in force",
        f"SELECT signal, gate, operator, threshold FROM (VALUES {', '.join(rows)}) "
        "AS found(number, signal, gate, operator, threshold) ORDER BY number",
        "read out of the conditions in the view gates: the numbers that a column is compared with by order",
    )
