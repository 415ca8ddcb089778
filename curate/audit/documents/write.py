"""Writes the documents of an audit beside its audit.json."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pyarrow import parquet

from curate.audit.documents.croissant import croissant, missing_fields
from curate.audit.documents.datasheet import datasheet
from curate.audit.documents.eu_summary import eu_summary
from curate.audit.documents.facts import Facts
from curate.audit.documents.settings import DocumentSettings
from curate.audit.figure import AUDIT, Audit
from curate.datasets.files import ABOUT, INDEX
from models.files import write_whole

CROISSANT, DATASHEET, EU_SUMMARY = "croissant.json", "datasheet.md", "eu_summary.md"


def write_documents(folder: Path, audit: Audit, settings: DocumentSettings) -> dict[str, str]:
    """Writes croissant.json, datasheet.md and eu_summary.md into the folder that audit.json lies in.

    Returns the fields that Croissant requires and that the settings do not give: see `missing_fields`.
    """
    facts = Facts(audit)
    found = croissant(facts, settings, list(_files(folder, audit.about.get("dataset"))))
    write_whole(folder / CROISSANT, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_whole(folder / DATASHEET, datasheet(facts, settings))
    write_whole(folder / EU_SUMMARY, eu_summary(facts, settings))
    return missing_fields(found)


def _files(folder: Path, dataset: str | None) -> Iterator[Mapping[str, Any]]:
    """audit.json and the two files of a dataset; the paths are relative to the folder of the audit."""
    yield _described(folder / AUDIT, AUDIT)
    if dataset is not None:
        for name in (ABOUT, INDEX):
            path = Path(dataset, name)
            yield _described(path, Path(os.path.relpath(path, folder)).as_posix())


def _described(path: Path, url: str) -> Mapping[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    described: dict[str, Any] = {"name": path.name, "url": url, "bytes": path.stat().st_size, "sha256": digest}
    if path.name == INDEX:
        schema = parquet.read_schema(path)
        described["columns"] = {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
    return described
