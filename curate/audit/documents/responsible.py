"""The fields of Croissant's vocabulary for responsible AI, from figures and from answers of the datasheet."""

from __future__ import annotations

from typing import Any

from curate.audit.documents.facts import Facts, named_model
from curate.audit.documents.markdown import shown
from curate.audit.documents.settings import DocumentSettings

COLLECTION_TYPES = {  # kind of source -> the vocabulary's word
    "public dataset": "Secondary Data Analysis", "licensed": "Others", "private": "Others", "crawled": "Web Scraping",
    "user": "User-Generated Content Data", "synthetic": "Others",
}  # fmt: skip
FIRST = 10  # rows of what is unknown, and of what gates hit hardest
MORE = 1.1  # times the gate's rate over all clips from which on a value is named
CONCENTRATED = ("source", "domain", "language", "concept")


def responsible(facts: Facts, settings: DocumentSettings) -> dict[str, Any]:
    """rai:… -> text or texts; without those that nothing is known of."""
    said = settings.answer
    kinds = list(dict.fromkeys(r["source_kind"] for r in facts.rows("rights.kinds")))
    fields: dict[str, Any] = {
        "dataCollection": _joined(said("mechanisms"), said("acquired"), *(
            f"{r['source_kind'] or 'of unknown kind'}, {r['media'] or 'unknown'}: {facts.amount(r)}"
            for r in facts.rows("rights.kinds")
        )),
        "dataCollectionType": list(dict.fromkeys(COLLECTION_TYPES[kind] for kind in kinds if kind is not None)),
        "dataCollectionMissingData": _joined(said("missing"), *(
            f"{r['column_name']}: {shown(r['unknown_clips'])} clips without a value"
            for r in facts.records("unknown.clips")[:FIRST] if r["unknown_clips"]
        ), *(f"{shown(r['sources'])} sources failed: {r['reason']}" for r in facts.records("failures.sources"))),
        "dataCollectionRawData": _joined(said("raw"), *(
            f"{r['media']}: {shown(facts.of(r, 'sources'))} sources" for r in facts.rows("rights.media")
        )),
        "dataPreprocessingProtocol": [
            f"{r['step']}: {shown(r['lost_clips'])} clips lost, {shown(r['clips_left'])} left"
            for r in facts.records("funnel.clips")
        ],
        "dataManipulationProtocol": _joined(said("preprocessing"), *(
            f"{r['gate']} keeps {r['condition']}" for r in facts.records("counterfactual.gates")
        )),
        "dataAnnotationProtocol": [
            f"{r['of_column']} by {r['source'] or 'unknown'}: {facts.amount(r)}" for r in facts.rows("captions.models")
        ],
        "machineAnnotationTools": list(dict.fromkeys(
            named_model(r) for r in (*facts.captions("model", "server"), *facts.records("runs.models"))
            if r["model"] is not None
        )),
        "dataBiases": [*_texts(said("subpopulations")), *_biases(facts)],
        "dataLimitations": [*_texts(said("noise"), said("unsuitable")), *(
            f"{r['kind']}: {shown(r['clips'])} clips, {shown(r['redundant_clips'])} of them redundant"
            for r in facts.records("duplicates.kinds") if r["redundant_clips"]
        ), *(
            f"{r['one']} and {r['other']} share, by {r['kind']}: {shown(r['shared'])}"
            for r in facts.records("leakage.shared") if r["shared"]
        )],
        "personalSensitiveInformation": _texts(said("sensitive"), said("identifiable")),
        "dataUseCases": _texts(said("used"), said("tasks")),
        "dataSocialImpact": _joined(said("impact"), said("future_impact")),
        "dataReleaseMaintenancePlan": _joined(said("maintainers"), said("updates"), said("retention")),
    }  # fmt: skip
    return {f"rai:{name}": value for name, value in fields.items() if value}


def _biases(facts: Facts) -> list[str]:
    """How much few values hold, and what gates drop more of than of all clips."""
    found = [
        f"{r['by_column']}: {shown(r['values'])} values; the largest has the share {shown(r['top_1'])} of the clips, "
        f"Gini coefficient {shown(r['gini'])}"
        for r in facts.records("concentration.clips") if r["by_column"] in CONCENTRATED and r["values"]
    ]  # fmt: skip
    hits = [r for r in facts.records("counterfactual.hits") if r["ratio"] is not None and r["ratio"] > MORE]
    return found + [
        f"{r['gate']} drops {shown(r['dropped_clips'])} of {shown(r['clips'])} clips with {r['by_column']} "
        f"{'unknown' if r['value'] is None else r['value']}: a rate of {shown(r['rate'])}, of all clips "
        f"{shown(r['base_rate'])}"
        for r in hits[:FIRST]
    ]


def _texts(*values: str | None) -> list[str]:
    return [value for value in values if value]


def _joined(*values: str | None) -> str:
    return "; ".join(_texts(*values))
