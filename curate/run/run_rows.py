"""The rows of the table `runs`: what a run begins with, and what came of it."""

from __future__ import annotations

import json
from typing import Any

from curate.engines.tally import Tally
from curate.recipe.plan import Plan, environment
from curate.run.listing import Listing
from curate.run.pending import PendingSources
from stages.unit import Row


def start_row(plan: Plan, run_id: str, listing: Listing | None, engine: str) -> Row:
    """The recipe, the settings of each table that it fills, versions of packages, and inputs."""
    states = plan.state_tables
    return {
        "run_id": run_id,
        "recipe": plan.recipe.name,
        "recipe_text": plan.recipe.text,
        "stages": json.dumps({table: json.loads(state.stages_json) for table, state in states.items()}),
        "settings": json.dumps({table: state.settings for table, state in states.items()}),
        "versions": json.dumps(environment()),
        "inputs": json.dumps(listing.inputs if listing is not None else []),
        "engine": engine,
    }


def end_row(status: str, seconds: float, total: Tally, sources: PendingSources | None, listing: Listing | None) -> Row:
    """`status` is 'finished', 'stopped' or 'error'; `seconds` the wall time of the work."""
    counts: dict[str, Any] = {name: getattr(total, name) for name in ("done", "failed", "kept", "dropped")}
    if sources is not None and listing is not None:
        counts |= {"listed": sources.listed, "left_out": listing.left_out, **sources.account()}
        counts |= {"purged": sources.already_purged + len(total.purged)}
    counts |= {"seconds": round(seconds, 3), "stage_seconds": dict(total.stage_seconds)}
    counts |= {"tables": {f"{table} {state}": n for (table, state), n in total.results.items()}}
    return {"status": status, "counts": json.dumps(counts)}
