"""AIPREF: whether content may train a model, by Content-Usage in robots.txt and in HTTP headers.

draft-ietf-aipref-attach and draft-ietf-aipref-vocab: a dictionary of categories of use, each `y` or `n`. Where
statements differ, the strictest counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from curate.catalog.rights import ALLOWED, NONE_FOUND, NOT_ALLOWED
from curate.run.opt_outs.domain_folder import DomainFolder
from curate.run.opt_outs.finding import Finding, strictest
from curate.run.opt_outs.patterns import matches, path_of
from curate.run.opt_outs.robots import Robots

TRAINING = "train-ai"
ANSWERS = {"y": ALLOWED, "n": NOT_ALLOWED}


def read_aipref(folder: DomainFolder, robots: Robots | None, url: str, agents: Sequence[str]) -> Finding | None:
    found: list[Finding] = []
    if url in folder.headers:
        fields, file = folder.headers[url]
        usage = fields.get("content-usage", "")
        found.append(file.says(_answer(usage), f"Content-Usage: {usage}" if usage else ""))
    if robots is not None:
        for agent in agents:
            # Usage is stated of what may be crawled alone.
            usages = robots.usages(agent) if robots.may_fetch(url, agent) else []
            said = [robots.file.says(_answer(usage), f"{agent}: {usage}") for usage in _longest(usages, path_of(url))]
            found += said or [robots.file.says(NONE_FOUND)]
    return strictest(dict.fromkeys(found))


def _longest(usages: Sequence[str], path: str) -> list[str]:
    """The preferences with the longest path that matches; a line without a path is about all."""
    found: dict[int, list[str]] = {}
    for usage in usages:
        pattern, _, preference = usage.partition(" ") if usage.startswith("/") else ("/", "", usage)
        if matches(pattern, path):
            found.setdefault(len(pattern.encode()), []).append(preference.strip())
    return found[max(found)] if found else []


def _answer(usage: str) -> str:
    """What a dictionary of RFC 9651 says of training; the last of equal keys counts, parameters do not."""
    answer = NONE_FOUND
    for member in usage.split(","):
        key, _, value = member.partition("=")
        if key.strip().lower() == TRAINING:
            answer = ANSWERS.get(value.partition(";")[0].strip().lower(), NONE_FOUND)
    return answer
