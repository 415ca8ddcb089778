"""`clipmill purge`: takes sources or clips out of a catalog and everything that was made of them, for good."""

from __future__ import annotations

from collections.abc import Sequence

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.errors import UserError
from curate.removal.caches import cache_folders
from curate.removal.carry_out import NOT_REACHED, alone, carry_out, finish_unfinished, refuse_live
from curate.removal.choose import Asked, NothingMatches, choose, read_list
from curate.removal.confirm import confirm
from curate.removal.plan import Plan, unfinished
from curate.removal.show import Found, find, near_duplicates
from curate.removal.trace import what_saw


def purge(
    uri: str,
    where: str | None = None,
    of: str | None = None,
    from_file: str | None = None,
    dry_run: bool = False,
    yes: bool = False,
    caches: Sequence[str] = (),
) -> int:
    """Shows what would go, asks unless `yes`, and takes it out. Without a condition or list, only a killed purge is
    finished. UserError for what names nothing, and while a run is at work.
    """
    catalog = Catalog.open(uri)
    if where is None and from_file is None:
        if unfinished(catalog) is None:
            raise UserError("give --where SQL or --from-file FILE: no purge of this catalog was interrupted")
        finish_unfinished(catalog)
        return 0
    if where is not None and from_file is not None:
        raise UserError("give --where or --from-file, not both: what a list names is not narrowed")
    if of is not None and where is None:
        raise UserError("--of says what --where is a condition on: give --where SQL")
    asked = Asked(where, of, read_list(from_file) if from_file is not None else ())
    finished = not dry_run and finish_unfinished(catalog)
    try:
        plan, found = _look(catalog, asked, caches, dry_run)
    except NothingMatches as error:
        if not finished:
            raise
        print(f"the interrupted purge is finished; {error}")
        return 0
    print("would go:" if dry_run else "to be purged:", *found.lines, sep="\n  ")
    if dry_run:
        print("nothing was changed (--dry-run)")
        return 0
    confirm("Purge all of that? It can't be undone.", yes)
    with alone(catalog) as ledgers:
        now, found = _look(catalog, asked, caches)
        if (now.sources, now.clips) != (plan.sources, plan.clips):
            raise UserError("the catalog has changed meanwhile: nothing was purged; look again")
        plan.done = {"hashes": sorted(found.hashes), "caches": list(caches), "counts": found.counts}
        plan.done |= {"seen": what_saw(catalog, now.clip_ids)}
        plan.save(catalog)
        try:
            refuse_live(catalog, next(iter(ledgers.values())).run_id)  # one that began before it could see the plan
        except UserError:
            plan.delete(catalog)
            raise
        record = carry_out(catalog, plan, ledgers)
    for about in plan.datasets:
        successor = about["successor"]
        then = f"train on {successor}" if successor else "no successor was made"
        print(f"retired the dataset {about['folder']}: {len(about['purged']):,} of its samples went; {then}")
    print("not purged, since clipmill can't reach it:", *NOT_REACHED, sep="\n  ")
    print(f"purged; nothing of it was found in the catalog afterwards: {record}")
    return 0


def _look(catalog: Catalog, asked: Asked, caches: Sequence[str], duplicates: bool = False) -> tuple[Plan, Found]:
    with connect(catalog) as sql:
        plan, unknown = choose(catalog, sql, asked)
        found = find(catalog, sql, plan, cache_folders(caches), unknown)
        if duplicates:
            found.lines.extend(near_duplicates(catalog, sql))
        return plan, found
