"""The rights columns of a clip, and what a sample's JSON says of them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

SIGNALS = ("robots", "tdmrep", "aipref", "rsl", "c2pa")  # opt-out signals


def signal_names(signal: str) -> tuple[str, str, str]:
    """The columns of an opt-out signal: its value, where it was read, and when."""
    return f"optout_{signal}", f"optout_{signal}_from", f"optout_{signal}_checked"


# Texts, but for times, which end in _checked.
RIGHTS_NAMES = (
    *("source_kind", "dataset", "dataset_licence", "licence", "language", "domain"),
    *("consent", "consent_from", "consent_checked"),
    *(name for signal in SIGNALS for name in signal_names(signal)),
)


def rights_info(row: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a clip's rights, as JSON holds it: NULL is left out, times are ISO 8601 in UTC."""
    return {name: _plain(row[name]) for name in RIGHTS_NAMES if row.get(name) is not None}


def _plain(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    return str(value)
