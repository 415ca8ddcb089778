"""A catalog with two versions: clips came and went, values changed, gates too; both counted in Python from Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.ledger import Ledger
from tests.catalog_rows import commit_rows
from tests.curate.audit.made import GATES, TYPES, planted, thumbnails
from tests.curate.audit.recount import Recount

GATES_THEN = {f"ingest.g{number}": where for number, where in enumerate(GATES)}
GATES_NOW = {
    "ingest.g0": "motion >= 0.5",  # was 0.25
    "ingest.g2": "end_s - start_s >= 1.5",  # the same; g1 is gone
    "ingest.sharp": "sharpness >= -5",
}
JUDGES_NOW = [
    lambda row: None if row["motion"] is None else row["motion"] >= 0.5,
    GATES["end_s - start_s >= 1.5"],
    lambda row: None if row["sharpness"] is None else row["sharpness"] >= -5,
]
GONE, CHANGED, FIRST_NEW = (1, 2), (3, 4), 16  # numbers of sources


@dataclass(frozen=True)
class TwoVersions:
    uri: str
    then: Recount
    now: Recount


def note_run(catalog: Catalog, run_id: str) -> None:
    text = "recipes: {ingest: {stages: []}}"
    run = {"run_id": run_id, "recipe": "ingest", "recipe_text": text, "inputs": [], "settings": {"sources": "s1"}}
    catalog.start_run(run)
    catalog.end_run(run_id, {"status": "finished", "counts": {"seconds": 1.0}})


def two_versions(folder: Path) -> TwoVersions:
    uri = planted(sources=FIRST_NEW).write(folder)
    catalog = Catalog.open(uri)
    note_run(catalog, "aaaa1111")
    then = Recount(uri, list(GATES.values()))
    made = planted(seed=5, sources=22)
    keys = {f"{number:032x}": number for number in range(22)}
    again = {key for key, number in keys.items() if number in CHANGED}
    old = [row for row in then.clips if row["source_id"] in again]
    moved = [
        {name: row[name] for name in planted().clips[0]}
        | {"motion": 3.0 if row["motion"] is None else row["motion"] / 4, "sharpness": None}
        for row in old
    ]
    fresh = [row for row in made.clips if keys[row["source_id"]] >= FIRST_NEW]
    names = list(made.sources[0])
    sources = [{name: row[name] for name in names} for key, row in then.sources.items() if key in again]
    sources += [row for row in made.sources if keys[row["source_id"]] >= FIRST_NEW]
    with Ledger(catalog, "sources", "source_id", "r2") as ledger:
        commit_rows(
            ledger, {"clips": moved + fresh, "thumbnails": thumbnails(moved + fresh), "sources": sources}, TYPES,
            redone=True,
        )  # fmt: skip
        ledger.forget([key for key, number in keys.items() if number in GONE])
        ledger.maintain()
    catalog.put_gates("ingest", [Gate(name=n.split(".")[1], where=w) for n, w in GATES_NOW.items()], "bbbb2222")
    note_run(catalog, "bbbb2222")
    return TwoVersions(uri, then, Recount(uri, JUDGES_NOW))
