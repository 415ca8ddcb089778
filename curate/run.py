"""A run: recipe to plan, listing to pending units, an engine to do them, a committer to keep them."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from curate.catalog import Catalog
from curate.committer import Committer
from curate.engines import run_units
from curate.errors import EngineError, UserError
from curate.gates import check_gates
from curate.idset import pack
from curate.ledger import Ledger
from curate.listing import Listing
from curate.pending import Pending
from curate.plan import Plan, environment, make_plan
from curate.progress import Progress
from curate.recipes import Recipe, load_recipes, settings_hash
from curate.report import report_run
from curate.storage import is_local, local_path
from curate.tables import BASE
from curate.units import Unit


@dataclass(frozen=True)
class RunOptions:
    """What the command line says about how to run, beside the recipe."""

    engine: str = "ray"
    limit: int | None = None
    retry_failed: bool = False
    rebuild: bool = False
    quiet: bool = False


def run_recipes(
    names: list[str],
    catalog: str,
    inputs: list[str] | None = None,
    pipelines: str | Path | None = None,
    overrides: tuple[str, ...] = (),
    options: RunOptions = RunOptions(),
) -> int:
    """Runs recipes one after the other; returns 0, or 1 where sources failed. Raises UserError."""
    recipes = [
        replace(recipe, inputs=tuple(inputs)) if inputs else recipe
        for recipe in load_recipes(pipelines, names, overrides)
    ]
    plans = [make_plan(recipe) for recipe in recipes]
    listings = [Listing(absolute(recipe.inputs), recipe.extensions) for recipe in recipes]
    for recipe, plan, listing in zip(recipes, plans, listings, strict=True):
        _check(recipe, plan)
        listing.check()
    _check_together(plans)
    where = Catalog.open_or_create(catalog)
    return max(_run(plan, listing, where, options) for plan, listing in zip(plans, listings, strict=True))


def absolute(inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Inputs as the catalog keeps them: `status` must find them again from any folder."""
    return tuple(local_path(text) if is_local(text) else text for text in inputs)


def _check(recipe: Recipe, plan: Plan) -> None:
    """A gate with a SQL error is the recipe's error: it is told with the recipe's file and line."""
    for gate in plan.gates:
        try:
            check_gates([gate], plan.columns.get("clips", {}))
        except UserError as error:
            line = recipe.gate_lines.get(gate.name)
            raise UserError(f"{recipe.file}:{line}: {error}" if line else str(error)) from error


def _check_together(plans: list[Plan]) -> None:
    """Recipes that fill the same tables must make their rows alike: told before the first of them runs."""
    made: dict[str, Plan] = {}
    for plan in plans:
        other = made.setdefault(plan.mark, plan)
        if other.stages_json != plan.stages_json:
            raise UserError(
                f"recipes {other.recipe.name!r} and {plan.recipe.name!r} make {plan.mark} by different stages: "
                "give each a catalog of its own"
            )


def _run(plan: Plan, listing: Listing, catalog: Catalog, options: RunOptions) -> int:
    run_id = uuid.uuid4().hex
    stages_json = plan.stages_json
    settings = settings_hash(stages_json)
    with Ledger(catalog, mark=plan.mark, key=plan.key, run_id=run_id) as ledger:
        pending = _pending(ledger, listing, settings, options)
        if pending.stale and not options.rebuild:
            _refuse_mixture(catalog, plan, stages_json, settings)
        catalog.put_gates(plan.recipe.name, plan.gates, run_id)
        catalog.start_run(
            {
                "run_id": run_id,
                "mark": plan.mark,
                "recipe": plan.recipe.name,
                "recipe_text": plan.recipe.text,
                "stages": stages_json,
                "settings": settings,
                "versions": json.dumps(environment()),
                "inputs": json.dumps(listing.inputs),
                "engine": options.engine,
            }
        )
        stamp = {"settings": settings, "recipe": plan.recipe.name, "run_id": run_id}
        committer = Committer(plan, ledger, pending, stamp)
        progress = Progress(plan, committer, pending, quiet=options.quiet)
        began = time.monotonic()
        error: BaseException | None = None
        with progress, _Interrupts() as interrupts:
            units = _units(plan, pending, options.engine)
            try:
                for unit in units:
                    committer.add(unit)
                    progress.update()
                    if interrupts.seen:
                        break
            except (UserError, EngineError) as caught:
                error = caught
            finally:
                units.close()
            committer.flush()
        status = "stopped" if interrupts.seen else "error" if error else "finished"
        counts = dict(committer.counts) | {"listed": pending.listed, "left_out": listing.left_out}
        counts |= {
            "seconds": round(time.monotonic() - began, 3),
            "stage_seconds": dict(committer.stage_seconds),
        }
        catalog.end_run(run_id, {"status": status, "counts": json.dumps(counts)})
        if error is not None:
            raise error
        ledger.compact()
    if interrupts.seen:
        print("stopped; what was finished is committed, the same command goes on from here", file=sys.stderr)
        return 130
    return report_run(catalog, plan, committer, pending, listing, quiet=options.quiet)


def _units(plan: Plan, pending: Pending, engine: str) -> Iterator[Unit]:
    """Pending units through the engine, which is started only if there is one."""
    todo = iter(pending)
    if (first := next(todo, None)) is not None:
        yield from run_units(plan.stages, chain([first], todo), engine)


def _refuse_mixture(catalog: Catalog, plan: Plan, stages_json: str, settings: str) -> None:
    """Rows made by other stages or settings are never mixed in silently: say what changed, and the way on."""
    last = catalog.last_stages(plan.mark)
    if last is None or last[0] == settings:  # a rebuild that was stopped goes on
        return
    changes = "; ".join(_changes(json.loads(last[1]), json.loads(stages_json)))
    raise UserError(
        f"the stages of recipe {plan.recipe.name!r} changed since this catalog was made ({changes}); "
        "add --rebuild to make every source again, or give another --catalog"
    )


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    before = {name: value for entry in old["stages"] for name, value in entry.items()}
    after = {name: value for entry in new["stages"] for name, value in entry.items()}
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            for key in dict.fromkeys([*was, *now]):
                if was.get(key) != now.get(key):
                    yield f"{name}.{key}: {was.get(key)} -> {now.get(key)}"
        else:
            yield f"{name}: {json.dumps(was)} -> {json.dumps(now)}"
    for name in dict.fromkeys([*old["versions"], *new["versions"]]):
        was, now = old["versions"].get(name), new["versions"].get(name)
        if was != now and name in before and name in after:
            yield f"version of {name}: {was} -> {now}"


def _pending(ledger: Ledger, listing: Listing, settings: str, options: RunOptions) -> Pending:
    pending = Pending(listing, limit=options.limit)
    stale = False
    for table in ledger.known():
        if not table.num_rows:
            continue
        ids, states = table["source_id"].to_pylist(), table["status"].to_pylist()
        other = [options.rebuild or text != settings for text in table["settings"].to_pylist()]
        stale = stale or any(other)
        chosen: dict[str, list[str]] = {"done": [], "failed": [], "again": []}
        for one, state, is_stale in zip(ids, states, other, strict=True):
            again = is_stale or (options.retry_failed and state == "failed")
            chosen["again" if again else state].append(one)
        for some, to in zip(chosen.values(), (pending.done, pending.failed, pending.replace), strict=True):
            if some:
                to.add(pack(some))
    if stale:
        pending.stale = _stale_entries(ledger, None if options.rebuild else settings)
    return pending


def _stale_entries(ledger: Ledger, settings: str | None) -> Iterable[dict[str, Any]]:
    """Sources made under other settings than these, with the manifest columns they came with."""
    made = set(BASE["sources"].names) - {"uri"}
    for table in ledger.known(all_columns=True):
        for row in table.to_pylist():
            if row["settings"] != settings:
                yield {name: value for name, value in row.items() if name not in made}


class _Interrupts:
    """Ctrl-C asks the run to stop after the unit in hand; a second one stops at once."""

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> _Interrupts:
        self.old = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True
        print("stopping after the work in hand (again: at once) …", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)
