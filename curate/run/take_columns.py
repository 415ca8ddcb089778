"""Columns of sources that do not come of a decode: those of manifests and archives, and opt-out signals."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.rights import RIGHTS, signal_columns
from curate.catalog.schema import BASE, BOOKKEEPING, JUDGED
from curate.catalog.source_columns import shown_in_clips, types_for_gates
from curate.errors import UserError, did_you_mean, missing_extra
from curate.recipe.load import Recipe
from curate.recipe.opt_out_settings import OptOutSettings
from curate.recipe.plan import Plan
from curate.run.listing import Listing
from curate.run.manifests.refresh import Refreshed, refresh_sources
from curate.run.naming import Naming
from curate.run.opt_outs.films import read_known_films
from curate.run.opt_outs.opt_outs import COLUMNS, FetchedSignals

LOOKALIKES = {"license": "licence", "dataset_license": "dataset_licence", "lang": "language"}


class OptOuts:
    """What `opt_outs` of a recipe does; nothing where the recipe has none. UserError before any work."""

    def __init__(self, recipe: Recipe, listing: Listing):
        entries = recipe.entries("rights")
        self.settings: OptOutSettings | None = entries[0].settings if entries else None
        self.place = f"{recipe.file}:{entries[0].line}" if entries else recipe.file
        self.signals: FetchedSignals | None = None
        if self.settings is None:
            return
        try:
            self._check(self.settings, listing)
        except UserError as error:
            raise UserError(f"{self.place}: {error}") from error

    def _check(self, settings: OptOutSettings, listing: Listing) -> None:
        if settings.c2pa and importlib.util.find_spec("c2pa") is None:
            raise missing_extra("c2pa-python", "c2pa")
        if settings.folder is not None:
            self.signals = FetchedSignals(settings)
        for manifest in listing.manifests.values():
            if both := sorted(set(manifest.names.values()) & set(self.columns)):
                raise UserError(
                    f"opt_outs: the manifest {manifest.uri} has the column {both[0]!r}, which is read here too: "
                    "take one of them out"
                )

    def check_url(self, columns: Iterable[str]) -> None:
        """UserError where `url` names a column that sources do not have."""
        url = self.settings.url if self.settings is not None else None
        if url is not None and url not in set(columns):
            others = [name for name in columns if name not in RIGHTS.names]
            said = f"opt_outs.url: sources have no column {url!r}{did_you_mean(url, others)}"
            raise UserError(f"{self.place}: {said}")

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """The columns that it fills."""
        found = dict(COLUMNS) if self.settings is not None and self.settings.folder is not None else {}
        return found | (signal_columns("c2pa") if self.settings is not None and self.settings.c2pa else {})

    def entries(self, listing: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        return listing if self.signals is None else self.signals.add_to(listing)

    def refresh(self, catalog: Catalog, ledger: Ledger, quiet: bool, stopped: Callable[[], bool]) -> None:
        """Known sources: what the folder says now, and the films that were never asked."""
        if "sources" not in ledger.tables or self.settings is None:
            return
        if self.signals is not None:
            changed = self.signals.refresh(ledger)
            if not quiet:
                print(f"opt_outs: {len(self.signals.domains):,} domains in {self.settings.folder}; "
                      f"{changed:,} known sources changed", file=sys.stderr)  # fmt: skip
        if self.settings.c2pa:
            asked = read_known_films(catalog, ledger, stopped)
            if asked and not quiet:
                print(f"opt_outs: C2PA read from {asked:,} known sources", file=sys.stderr)


class SourceColumns:
    """The columns of the sources of one recipe: checked here, before any work, and taken by `take` as the run begins.

    The gates of the recipe may name those of manifests: `gate_names` maps a column of `sources` to its name in `clips`,
    `gate_types` that name to an Arrow type. UserError for what can't be.
    """

    def __init__(self, catalog: Catalog, plan: Plan, listing: Listing):
        self.listing = listing
        self.opt_outs = OptOuts(plan.recipe, listing)
        table = catalog.table("sources")
        stored = pa.schema(table.schema().to_arrow()) if table is not None else BASE["sources"]
        there = {field.name: field.type for field in stored}
        types = types_for_gates(there | dict(listing.join_columns(there)))
        self.opt_outs.check_url(types)
        taken = {*BASE["clips"].names, *JUDGED, *(name for columns in plan.columns.values() for name in columns)}
        for name in catalog.tables():
            if name not in BASE and (other := catalog.table(name)) is not None:
                taken |= {field.name for field in other.schema().fields} - BOOKKEEPING
        self.gate_names = shown_in_clips(types, taken)
        self.gate_types = {self.gate_names[name]: kind for name, kind in types.items()}

    def take(self, ledger: Ledger, naming: Naming, begin: Callable[[], Any]) -> Refreshed | None:
        """Adds the columns to `sources`, widens those there are, and refreshes the rows of known sources by manifests,
        before any row is made. `begin` takes a pass.
        """
        stored = ledger.schema("sources") if "sources" in ledger.tables else BASE["sources"]
        there = {field.name: field.type for field in stored}
        types = self.listing.join_columns(there)
        wanted = dict(types) | dict(self.opt_outs.columns)
        if any(there.get(name) != kind for name, kind in wanted.items()):
            begin()
            ledger.widen_columns(types)
            ledger.add_columns("sources", pa.schema(wanted.items()))
        if self.listing.manifests and "sources" in ledger.tables:
            return refresh_sources(ledger, self.listing.manifests.values(), types, naming)
        return None


def look_alikes(listing: Listing) -> list[str]:
    """A note for each column that has nearly the name of a rights column."""
    return [
        f"note: {manifest.uri}: {name!r} is a column like any; call it {LOOKALIKES[name.lower()]!r} "
        "to make it the rights column"
        for manifest in listing.manifests.values()
        for name in manifest.names.values()
        if name.lower() in LOOKALIKES and LOOKALIKES[name.lower()] in RIGHTS.names
        and LOOKALIKES[name.lower()] not in manifest.names.values()
    ]  # fmt: skip
