"""TDMRep: the W3C community's reservation of text and data mining, by a file at the origin or by HTTP headers."""

from __future__ import annotations

import json

from curate.catalog.rights import ALLOWED, CONSTRAINED, NONE_FOUND, NOT_ALLOWED
from curate.errors import first_line
from curate.run.opt_outs.domain_folder import TDMREP, DomainFolder
from curate.run.opt_outs.finding import FetchedText, Finding, strictest
from curate.run.opt_outs.patterns import matches, path_of


class TdmRules:
    """The rules of a tdmrep.json: the one with the longest pattern that matches counts."""

    def __init__(self, folder: DomainFolder):
        self.file: FetchedText | None = None
        self.rules: list[tuple[str, str, str]] = []  # pattern, answer, the rule as written
        for name in TDMREP:
            file = folder.text(name)
            if file is None:
                continue
            try:
                rules = json.loads(file.text) if file.text.strip() else []
                if not isinstance(rules, list):
                    raise ValueError("not an array of rules")
                self.rules = [_rule(rule) for rule in rules if isinstance(rule, dict) and "location" in rule]
                self.file = file
                return
            except (ValueError, RecursionError) as error:
                folder.complain(name, f"no TDMRep file ({first_line(error)})")

    def finding(self, url: str) -> Finding | None:
        if self.file is None:
            return None
        path = path_of(url)
        found = [rule for rule in self.rules if rule[1] != NONE_FOUND and matches(rule[0], path)]
        if not found:
            return self.file.says(NONE_FOUND)
        _, answer, text = max(found, key=lambda rule: len(rule[0]))
        return self.file.says(answer, text)


def read_tdmrep(folder: DomainFolder, rules: TdmRules, url: str) -> Finding | None:
    """A header goes before the file."""
    found = [rules.finding(url)]
    if url in folder.headers:
        fields, file = folder.headers[url]
        reservation, policy = fields.get("tdm-reservation", "").strip(), fields.get("tdm-policy", "").strip()
        answer = _answer(reservation, policy)
        if answer != NONE_FOUND:
            return file.says(answer, f"tdm-reservation: {reservation}" + (f", tdm-policy: {policy}" if policy else ""))
        found.append(file.says(NONE_FOUND))
    return strictest(each for each in found if each is not None)


def _rule(rule: dict[str, object]) -> tuple[str, str, str]:
    location, reservation = str(rule["location"]), str(rule.get("tdm-reservation", ""))
    policy = str(rule.get("tdm-policy") or "")
    pattern = location if location.startswith(("/", "*")) else f"/{location}"
    said = f"{location}: tdm-reservation {reservation}" + (f", tdm-policy {policy}" if policy else "")
    return pattern, _answer(reservation, policy), said


def _answer(reservation: str, policy: str) -> str:
    """Rights that are reserved can be had by the policy where there is one."""
    if reservation == "1":
        return CONSTRAINED if policy else NOT_ALLOWED
    return ALLOWED if reservation == "0" else NONE_FOUND
