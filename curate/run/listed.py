"""What came of the sources that the inputs of all runs name now: done, failed, pending or removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.catalog.catalog import Catalog
from curate.catalog.idset import IdSet, pack
from curate.catalog.places import read_places
from curate.errors import UserError
from curate.recipe.load import endings
from curate.removal.memory import read_purged
from curate.run.listing import Listing
from curate.run.moved import new_place
from curate.run.naming import Naming
from curate.run.pending import PendingSources

if TYPE_CHECKING:
    import duckdb

Extensions = tuple[str, ...] | None


@dataclass(frozen=True)
class ListedSources:
    """Sources that inputs name, each counted once: sources = done + failed + pending + removed.

    With inputs out of reach the counts are those of the others, so the true ones are not known.
    """

    sources: int
    done: int
    failed: int
    pending: int
    removed: int  # purged, and still named
    out_of_reach: tuple[str, ...]  # a line for each input that can't be listed

    @property
    def known(self) -> bool:
        return not self.out_of_reach


def list_again(sql: duckdb.DuckDBPyConnection, catalog: Catalog) -> ListedSources:
    """Lists the inputs of all runs of a catalog again. `sql` has its views."""
    places, trouble = read_places(catalog), list[str]()
    rows = sql.execute("SELECT DISTINCT recipe_text, recipe, inputs FROM runs").fetchall()
    wanted = {(one, _extensions(text, name)) for text, name, inputs in rows for one in json.loads(inputs)}
    inputs = sorted(((new_place(places, one), found) for one, found in wanted), key=str)
    found = PendingSources(
        _entries(inputs, trouble),
        done=_ids(sql, "done"),
        failed=_ids(sql, "failed"),
        naming=Naming(places, [one for one, _ in inputs]),
        purged=read_purged(catalog),
    )
    pending = sum(1 for _ in found)
    return ListedSources(
        sources=found.listed, done=found.already_done, failed=found.already_failed, pending=pending,
        removed=found.already_purged, out_of_reach=tuple(dict.fromkeys(trouble)),
    )  # fmt: skip


def _entries(inputs: list[tuple[str, Extensions]], trouble: list[str]) -> Iterator[dict[str, Any]]:
    """The entries of all inputs; what can't be listed is said in `trouble`."""
    for one, extensions in inputs:
        listing = Listing((one,), extensions)
        try:
            listing.check()
            yield from listing
        except (UserError, OSError) as error:
            trouble.append(str(error) if one in str(error) else f"{one}: {error}")


def _ids(sql: duckdb.DuckDBPyConnection, status: str) -> IdSet:
    found = IdSet()
    for batch in sql.sql("SELECT source_id FROM sources WHERE status = ?", params=[status]).to_arrow_reader(100_000):
        if batch.num_rows:
            found.add(pack(batch["source_id"].to_pylist()))
    return found


def _extensions(recipe_text: str, recipe: str) -> Extensions:
    """The file endings that the recipe of an earlier run asked for."""
    import yaml

    body = yaml.safe_load(recipe_text)["recipes"][recipe]
    given = body.get("extensions") or []
    return endings((given,) if isinstance(given, str) else tuple(given))
