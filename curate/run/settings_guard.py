"""Rows made by other stages or settings are never mixed in silently: what changed is said, and the way on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from curate.catalog.catalog import Catalog
from curate.errors import UserError
from curate.recipe.plan import Plan, StateTable


def refuse_mixture(catalog: Catalog, plan: Plan, mark: StateTable, rebuild: bool = False) -> None:
    """UserError, unless the last run made rows as this one would: a rebuild that was stopped goes on.

    Even a rebuild does not put the rows of another kind of stage in place of those there are.
    """
    now = json.loads(mark.stages_json)
    last = catalog.last_stages(mark.table)
    if last is None or last == now:
        return
    if mark.key == "clip_id":
        filled, fills = ([name for entry in stages["stages"] for name in entry] for stages in (last, now))
        if filled != fills:
            raise UserError(
                f"table {mark.table!r} is filled by the stage {filled[0]!r}: give {fills[0]!r} another name with `as:`"
            )
    if rebuild:
        return
    changed = "; ".join(changes(last, now))
    if mark.key == "source_id":
        raise UserError(
            f"the stages of recipe {plan.recipe.name!r} changed since this catalog was made ({changed}); "
            "add --rebuild to make every source again, or give another --catalog"
        )
    raise UserError(
        f"table {mark.table!r} was made by other settings ({changed}); give the stage another name with `as:` to keep "
        "both, or add --rebuild to make its rows again"
    )


def changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What differs between two sets of stages, one phrase each."""
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
        if was != now and name in before and before[name] == after.get(name):
            yield f"version of {name}: {was} -> {now}"
