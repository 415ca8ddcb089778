"""Croissant 1.1 of what was audited: JSON-LD with RAI fields, provenance (PROV-O) and conditions of use (ODRL).

A field that neither figures nor settings give is left out. `missing_fields` names those that Croissant requires.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curate.audit.documents.facts import Facts
from curate.audit.documents.origin import provenance, usage
from curate.audit.documents.responsible import responsible
from curate.audit.documents.settings import DocumentSettings
from stages.shards.rights import RIGHTS_NAMES

Json = dict[str, Any]
CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
OWN_TERMS = (
    "annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes", "extract", "field",
    "fileProperty", "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
    "parentField", "path", "readLines", "recordSet", "references", "regex", "repeated", "replace", "samplingRate",
    "sdVersion", "separator", "source", "subField", "transform", "unArchive", "value",
)  # fmt: skip
CONTEXT: Json = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/", "prov": "http://www.w3.org/ns/prov#", "odrl": "http://www.w3.org/ns/odrl/2/",
    "tdm": "http://www.w3.org/ns/tdmrep#", "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"}, "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"}, "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in OWN_TERMS},
}  # fmt: skip
# What Croissant requires -> the key of the settings file that gives it; None: always there.
REQUIRED = {
    "@context": None, "@type": None, "conformsTo": None, "name": "dataset.name", "description": "dataset.description",
    "distribution": None, "license": "dataset.licence", "url": "dataset.url", "creator": "provider.name",
    "datePublished": "dataset.published",
}  # fmt: skip
COUNTS = ("clips", "hours", "kept_clips", "kept_hours")
# Record sets whose rows stand in the file itself: name -> (figure, columns)
INLINE = {
    "media": ("rights.media", ("media", "sources", "kept_sources", *COUNTS)),
    "source_kinds": ("rights.kinds", ("source_kind", "media", "sources", "kept_sources", *COUNTS)),
    "datasets": ("rights.datasets", ("source_kind", "dataset", "dataset_licence", "sources", "kept_sources", *COUNTS)),
    "crawled_domains": ("rights.crawled_domains", ("domain", "sources", "kept_sources", *COUNTS)),
    "opt_outs": (
        "rights.opt_outs",
        ("signal", "answer", "sources", "kept_sources", *COUNTS, "first_checked", "last_checked"),
    ),
    "funnel": ("funnel.clips", ("step", "lost_clips", "lost_hours", "clips_left", "hours_left")),
    "gates": ("counterfactual.gates", ("gate", "condition", "dropped_clips", "dropped_hours")),
}  # fmt: skip
COMPOSITION = ("value", "values", *COUNTS)
INDEX_TYPES = {
    "string": "sc:Text",
    "double": "sc:Float",
    "float": "sc:Float",
    "int32": "sc:Integer",
    "int64": "sc:Integer",
}
INDEX_COLUMNS = ("clip_id", "source_id", "bucket", "seconds", "weight", *RIGHTS_NAMES)


def croissant(facts: Facts, settings: DocumentSettings, files: Sequence[Mapping[str, Any]]) -> Json:
    """The JSON-LD. `files` are those to describe: name, url, bytes, sha256, and of a dataset's index its columns."""
    given, total = settings.dataset, facts.total
    made = str(facts.about["made"])
    counted = f"{facts.amount(total)}: {facts.counted} of {facts.name}"
    optional = {
        "url": given.url,
        "license": given.licence,
        "version": given.version,
        "citeAs": given.cite,
        "keywords": list(given.keywords) or None,
        "datePublished": given.published and given.published.isoformat(),
        "creator": _provider(settings),
        "publisher": _provider(settings),
        "inLanguage": [r["value"] for r in facts.rows("composition.language") if r["value"] is not None] or None,
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": given.name or facts.name,
        "description": given.description or counted,
        "dateCreated": str((facts.about.get("described") or {}).get("created") or made),
        "sdDatePublished": made,
        **{name: value for name, value in optional.items() if value is not None},
        **responsible(facts, settings),
        **provenance(facts, settings),
        **usage(facts),
        "distribution": [_file(each) for each in files],
        "recordSet": [*_figures(), *_inline(facts), *(s for each in files for s in _index(each))],
    }


def missing_fields(found: Json) -> dict[str, str]:
    """The fields that Croissant requires and that are not there, with the key of the settings file that gives each."""
    return {name: str(key) for name, key in REQUIRED.items() if found.get(name) in (None, "", [], {})}


def _provider(settings: DocumentSettings) -> Json | None:
    given = settings.provider
    if given.name is None:
        return None
    return {"@type": "sc:Organization", "name": given.name} | ({"url": given.url} if given.url else {})


def _file(each: Mapping[str, Any]) -> Json:
    formats = {"json": "application/json", "parquet": "application/x-parquet"}
    return {
        "@type": "cr:FileObject", "@id": each["name"], "name": each["name"], "contentUrl": each["url"],
        "contentSize": f"{each['bytes']} B", "sha256": each["sha256"],
        "encodingFormat": formats[each["name"].rpartition(".")[2]],
    }  # fmt: skip


def _record_set(name: str, description: str, fields: Iterable[Json], **more: Any) -> Json:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "field": list(fields),
        **more,
    }


def _field(record_set: str, name: str, kind: str, source: Json | None = None) -> Json:
    named = {"@type": "cr:Field", "@id": f"{record_set}/{name}", "name": name, "dataType": kind}
    return named | ({} if source is None else {"source": source})


def _figures() -> Iterable[Json]:
    """The figures of audit.json, each with the SQL that gives it."""
    paths = {name: f"$.sections[*].figures[*].{name}" for name in ("id", "title", "sql", "note")}
    yield _record_set("figures", "Figures of the audit, each with its SQL", (
        _field("figures", name, "sc:Text", {"fileObject": {"@id": "audit.json"}, "extract": {"jsonPath": path}})
        for name, path in paths.items()
    ))  # fmt: skip


def _inline(facts: Facts) -> Iterable[Json]:
    for name, (id, columns) in INLINE.items():
        rows = [[record[column] for column in columns] for record in facts.records(id)]
        yield from _rows(name, f"Figure {id} of audit.json", columns, rows)
    composition = [
        [figure.id.removeprefix("composition."), *(record[column] for column in COMPOSITION)]
        for figure in facts.audit.figures()
        if figure.id.startswith("composition.") and set(COMPOSITION) <= set(figure.columns)
        for record in figure.records()
    ]
    yield from _rows("composition", "Figures composition.* of audit.json", ("by_column", *COMPOSITION), composition)


def _rows(name: str, description: str, columns: Sequence[str], rows: list[list[Any]]) -> Iterable[Json]:
    """A record set with its rows; none without a row."""
    if not rows:
        return
    fields = [_field(name, column, _type([row[at] for row in rows])) for at, column in enumerate(columns)]
    data = [{f"{name}/{column}": cell for column, cell in zip(columns, row, strict=True)} for row in rows]
    yield _record_set(name, description, fields, data=data)


def _type(values: Sequence[Any]) -> str:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) for value in known):
        return "sc:Integer" if all(isinstance(value, int) for value in values) else "sc:Float"
    return "sc:Text"


def _index(each: Mapping[str, Any]) -> Iterable[Json]:
    """The samples of a dataset: columns of its index."""
    there = {name: INDEX_TYPES[kind] for name, kind in each.get("columns", {}).items()
             if name in INDEX_COLUMNS and kind in INDEX_TYPES}  # fmt: skip
    if there:
        yield _record_set("samples", "Samples of the dataset", (
            _field("samples", name, kind, {"fileObject": {"@id": each["name"]}, "extract": {"column": name}})
            for name, kind in there.items()
        ))  # fmt: skip
