"""Where a dataset comes from, in PROV-O, and under which conditions it may be used, in ODRL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from curate.audit.documents.facts import Facts, named_model
from curate.audit.documents.settings import DocumentSettings

Json = dict[str, Any]
# What an owner said of training -> the rule that ODRL has for it; a signal that says nothing makes none.
RULES = {"not allowed": "odrl:prohibition", "constrained": "odrl:permission", "allowed": "odrl:permission"}


def provenance(facts: Facts, settings: DocumentSettings) -> Json:
    """Datasets that it was derived from, the runs and models that made it, and who answers for it."""
    derived = [
        {"@type": "prov:Entity", "prov:label": r["dataset"], "description": f"{r['source_kind'] or 'unknown kind'}, "
         f"licence {r['dataset_licence'] or 'unknown'}: {facts.amount(r)}"}
        for r in facts.rows("rights.datasets")
    ]  # fmt: skip
    found: Json = {"prov:wasDerivedFrom": derived, "prov:wasGeneratedBy": [*_runs(facts), *_captions(facts)]}
    parent = (facts.about.get("described") or {}).get("parent")
    if parent:
        found["prov:wasRevisionOf"] = {"@type": "prov:Entity", "prov:label": parent["name"]}
    if settings.provider.name:
        found["prov:wasAttributedTo"] = {"@type": "prov:Agent", "prov:label": settings.provider.name}
    return {name: value for name, value in found.items() if value}


def _runs(facts: Facts) -> Iterator[Json]:
    for record in facts.records("runs.history"):
        times = {"prov:startedAtTime": record["started_at"], "prov:endedAtTime": record["ended_at"]}
        yield {
            "@type": "prov:Activity",
            "prov:label": f"recipe {record['recipe']}, run {record['run_id']}",
            **{name: f"{time.replace(' ', 'T')}Z" for name, time in times.items() if time},
            "prov:wasAssociatedWith": {"@type": "prov:SoftwareAgent", "prov:label": "clipmill"},
        }


def _captions(facts: Facts) -> Iterator[Json]:
    for record in facts.captions("model", "server"):
        yield {
            "@type": "prov:Activity",
            "prov:label": f"captions of the column {record['of_column']}: {facts.amount(record)}",
            "prov:wasAssociatedWith": {"@type": "prov:SoftwareAgent", "prov:label": named_model(record)},
        }


def usage(facts: Facts) -> Json:
    """An offer for each licence of the sources, and for each answer of an opt-out signal.

    A licence is not read: it permits use on the duty to review it. What is unknown gives no rule.
    """
    offers = []
    for name, what in (("licence", "sources"), ("dataset_licence", "datasets")):
        for r in facts.rows(f"composition.{name}"):
            if r["value"] is None:  # not known, or the row of the rest
                continue
            is_url = re.fullmatch(r"https?://[^\s<>\"{}|\\^`]+", r["value"])
            licence = {"@id": r["value"]} if is_url else {"@type": "CreativeWork", "name": r["value"]}
            duty = {"@type": "odrl:Duty", "odrl:action": {"@id": "odrl:reviewPolicy"}, "odrl:target": licence}
            rule = {"@type": "odrl:Permission", "odrl:action": {"@id": "odrl:use"}, "odrl:duty": duty}
            offers.append(_offer(f"Licence of the {what}: {r['value']}", "odrl:permission", rule, facts.amount(r)))
    for r in facts.rows("rights.opt_outs"):
        if (kind := RULES.get(r["answer"])) is None:
            continue
        rule = {"@type": f"odrl:{kind.removeprefix('odrl:').capitalize()}", "odrl:action": {"@id": "tdm:mine"}}
        if r["answer"] == "constrained":
            rule["odrl:duty"] = {"@type": "odrl:Duty", "odrl:action": {"@id": "odrl:reviewPolicy"}}
        said = f"{r['answer']}, read from places such as {r['read_from'] or 'unknown'}"
        offers.append(_offer(f"Training by {r['signal']}: {said}", kind, rule, facts.amount(r)))
    return {"usageInfo": offers} if offers else {}


def _offer(name: str, kind: str, rule: Json, amount: str) -> Json:
    target = {"@type": "odrl:AssetCollection", "description": amount}
    return {"@type": ["CreativeWork", "odrl:Offer"], "name": name, kind: {**rule, "odrl:target": target}}
