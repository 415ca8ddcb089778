"""Carries a plan out, step by step, so that a purge that was killed at any moment goes on to the end.

Each step finds nothing to do where it was done before. Rows of stages go before those of their clips, and shards after
the rows that named them, so that every other command sees a consistent catalog at any moment.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from curate.catalog import lease
from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect
from curate.errors import DamagedError, UserError
from curate.removal.caches import cache_folders, empty_caches
from curate.removal.datasets import retire_datasets
from curate.removal.memory import remember
from curate.removal.plan import FOLDER, Plan, now, remove_unfinished, unfinished
from curate.removal.search import SMALL, Searched, search
from curate.removal.shards import delete_moved, move_clips
from curate.removal.tables import drop_histories, erase_rows, open_ledgers
from curate.removal.texts import scrub_tables
from curate.storage import join
from stages.scan.purged import digest

LEASE = "removals"
NOT_REACHED = (
    "the source files themselves, which clipmill never deletes, and manifests that name them",
    "exports, contact sheets, audits and copies of the catalog, its shards or its datasets in other places",
    "runs trained on the datasets: their checkpoints, logs and samples",
    "caches of loaders on other machines, or in folders that were not named by --cache",
    "backups, snapshots of disks and earlier versions of objects in a bucket that keeps them",
)


@contextmanager
def alone(catalog: Catalog) -> Iterator[dict[str, Ledger]]:
    """The ledgers of all tables while nobody else runs on the catalog. UserError, naming it, for a live run."""
    run_id = uuid.uuid4().hex
    with ExitStack() as stack:
        held = lease.acquire(catalog.uri, LEASE, run_id)
        stack.callback(held.release)
        ledgers = open_ledgers(catalog, run_id, stack)
        refuse_live(catalog, run_id)
        yield ledgers


def refuse_live(catalog: Catalog, run_id: str) -> None:
    if others := lease.live_runs(catalog.uri) - {run_id}:
        raise UserError(f"run {min(others)} is at work on {catalog.uri}: wait for it, or `clipmill stop` it")


def finish_unfinished(catalog: Catalog) -> bool:
    """Does what a killed purge left to do; whether there was something. To be called before any work on a catalog.

    UserError while a purge is at work.
    """
    if (plan := unfinished(catalog)) is not None:
        with alone(catalog) as ledgers:
            print(f"a purge was interrupted ({plan.removal_id}): finishing it first")
            carry_out(catalog, plan, ledgers)
    return plan is not None


def refuse_unfinished(catalog: Catalog) -> None:
    """UserError where a purge has begun since `finish_unfinished`."""
    if (plan := unfinished(catalog)) is not None:
        raise UserError(f"a purge of {catalog.uri} is under way ({plan.removal_id}): wait for its end")


def carry_out(catalog: Catalog, plan: Plan, ledgers: Mapping[str, Ledger]) -> Path | str:
    """Does what is left of a plan; the place of the record. DamagedError where the search finds something after all."""
    remember(catalog, plan)
    with connect(catalog) as sql:
        move_clips(catalog, sql, plan)
        plan.save(catalog)
        retire_datasets(catalog, plan)
        written = erase_rows(ledgers, sql, plan)
    for name, count in written.items():
        plan.done.setdefault("files written anew", {}).setdefault(name, 0)
        plan.done["files written anew"][name] += count
    plan.save(catalog)
    for folder in SMALL:
        remove_unfinished(catalog, folder)
    deleted = delete_moved(catalog, plan)
    hashes = set(plan.done.get("hashes", ()))
    emptied = empty_caches(catalog, plan, cache_folders(plan.done.get("caches", ())), hashes)
    scrubbed = scrub_tables(catalog, plan)
    drop_histories(catalog, ledgers)
    searched = search(catalog, plan)
    if searched.found:
        raise DamagedError(f"purged values are still in {', '.join(searched.found[:5])}: purge again, or delete those")
    record = _record(plan, searched, {"files of shards deleted": deleted, **emptied, "texts changed in": scrubbed})
    name = join(FOLDER, f"{plan.removal_id}.json")
    catalog.put_file(name, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    plan.delete(catalog)
    return join(catalog.uri, name)


def _record(plan: Plan, searched: Searched, steps: Mapping[str, Any]) -> dict[str, Any]:
    done = {name: value for name, value in plan.done.items() if name not in ("hashes", "caches", "counts", "seen")}
    missing: Sequence[str] = done.pop("datasets not found", ())
    return {
        "removal_id": plan.removal_id,
        "began": plan.began,
        "ended": now().isoformat(timespec="seconds"),
        "removed": plan.done.get("counts", {}),
        "sources": [digest(source.source_id) for source in plan.sources],
        "clips": [digest(clip) for clip in sorted(plan.clip_ids)],
        "shards": {digest(old): made and made["shard"] for old, made in (plan.moved or {}).items()},
        "datasets": plan.datasets,
        "seen": plan.done.get("seen"),
        "steps": done | dict(steps),
        "searched": searched.to_dict(),
        "found": len(searched.found),
        "not purged": [*(f"the dataset {one}" for one in missing), *NOT_REACHED],
    }
