"""Purged ids and URIs inside texts that stay: what runs were given, gates, selections of datasets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from curate.catalog.catalog import OWN_TABLES, Catalog
from curate.catalog.schema import BASE
from curate.removal.plan import Plan

ID = re.compile(r"[0-9a-f]{32}")
INSTEAD = "purged"


def values_in(text: str, plan: Plan) -> list[str]:
    """The purged ids and URIs that a text holds. A URI counts where no name goes on before or after it."""
    found = [one for one in ID.findall(text) if one in plan.source_ids or one in plan.clip_ids]
    return found + [uri for uri in plan.uris if uri in text and _uri(uri).search(text)]


def without_values(value: Any, plan: Plan) -> Any:
    """A JSON value with 'purged' in place of each purged id and URI in its texts."""
    if isinstance(value, str):
        return _without(value, plan)
    if isinstance(value, Mapping):
        return {without_values(key, plan): without_values(each, plan) for key, each in value.items()}
    return [without_values(each, plan) for each in value] if isinstance(value, list) else value


def scrub_tables(catalog: Catalog, plan: Plan) -> list[str]:
    """Takes purged ids and URIs out of `runs`, `gates` and `places`; the tables that held some."""
    scrubbed = []
    for name in OWN_TABLES:
        rows = catalog.rows(name)
        texts = [field.name for field in BASE[name] if str(field.type) == "string"]
        if name == "removals" or not any(values_in(row[text], plan) for row in rows for text in texts if row[text]):
            continue
        for row in rows:
            for text in texts:
                if row[text]:
                    row[text] = _inputs(row[text], plan) if text == "inputs" else _without(row[text], plan)
        if name == "places":  # a move of one file that is gone says nothing
            rows = [row for row in rows if INSTEAD not in (row["old"], row["new"])]
        catalog.replace_rows(name, rows)
        scrubbed.append(name)
    return scrubbed


def _inputs(text: str, plan: Plan) -> str:
    """The inputs of a run, JSON, without purged files: they are listed again by `status`."""
    return json.dumps([_without(one, plan) for one in json.loads(text) if one not in plan.uris])


def _without(text: str, plan: Plan) -> str:
    for value in sorted(set(values_in(text, plan)), key=len, reverse=True):
        text = (_uri(value) if value in plan.uris else re.compile(value)).sub(INSTEAD, text)
    return text


def _uri(uri: str) -> re.Pattern[str]:
    """A URI that is not a part of a longer name: /a/b.mp4 is not in /a/b.mp4.bak, nor in /x/a/b.mp4."""
    return re.compile(rf"(?<![\w./-]){re.escape(uri)}(?![\w/-]|\.\w)")
