"""What one reader of signals says of one film."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import NamedTuple

from curate.catalog.rights import ALLOWED, CONSTRAINED, NONE_FOUND, NOT_ALLOWED

STRICTEST_FIRST = (NOT_ALLOWED, CONSTRAINED, ALLOWED, NONE_FOUND)


class Finding(NamedTuple):
    """A value of `optout_*`, where it was read, and when that was fetched."""

    value: str
    read_from: str
    checked: datetime.datetime


class FetchedText(NamedTuple):
    """The text of a fetched file, '' where the server had none; its name in the folder, and the time of the fetch."""

    text: str
    name: str
    fetched: datetime.datetime

    def says(self, value: str, what: str = "") -> Finding:
        return Finding(value, f"{self.name} ({what})" if what else self.name, self.fetched)


def strictest(found: Iterable[Finding]) -> Finding | None:
    """The finding that allows least. Where none was found in any, all of them were read, the oldest then."""
    findings = sorted(found, key=lambda each: STRICTEST_FIRST.index(each.value))
    if not findings:
        return None
    if findings[0].value != NONE_FOUND:
        return findings[0]
    return Finding(NONE_FOUND, ", ".join(each.read_from for each in findings), min(each.checked for each in findings))
