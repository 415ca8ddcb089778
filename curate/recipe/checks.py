"""What is checked of recipes before a run begins any work."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from curate.catalog.catalog import OWN_TABLES, Catalog
from curate.catalog.gates import check_gates
from curate.catalog.schema import BOOKKEEPING, JUDGED
from curate.catalog.source_columns import of_manifests
from curate.errors import UserError
from curate.recipe.load import Recipe, StageEntry
from curate.recipe.plan import Plan
from stages.base import Context, SettingsError, Stage


def check_plan_gates(plan: Plan, known: dict[str, Any]) -> None:
    """A gate with a SQL error is the recipe's error: it is told with the recipe's file and line.

    A gate sees the columns `known` before the recipe, those of the decode pass, and those of stages before it.
    """
    columns = known | plan.columns.get("clips", {})
    judged = 0
    for step in [*plan.steps, None]:
        gates = plan.gates if step is None else step.gates
        for gate in gates[judged:]:
            try:
                check_gates([gate], columns)
            except UserError as error:
                line = plan.recipe.gate_lines.get(gate.name)
                raise UserError(f"{plan.recipe.file}:{line}: {error}" if line else str(error)) from error
        judged = len(gates)
        if step is not None:
            columns = columns | step.stage.columns()[step.stage.table]


def check_together(plans: list[Plan]) -> None:
    """Recipes that fill the same tables must make their rows alike: told before the first of them runs."""
    made: dict[str, tuple[Recipe, str]] = {}
    for plan in plans:
        for table, mark in plan.state_tables.items():
            other, stages = made.setdefault(table, (plan.recipe, mark.stages_json))
            if stages != mark.stages_json:
                fix = "give each a catalog of its own" if table == "sources" else "give one of the stages another `as`"
                raise UserError(
                    f"recipes {other.name!r} and {plan.recipe.name!r} make {table} by different stages: {fix}"
                )


def check_columns(plan: Plan, catalog: Catalog) -> None:
    """Columns of this plan's stages that a table of another recipe shows in `clips` already."""
    mine = {c.lower(): step for step in plan.steps for c in step.stage.columns()[step.stage.table]}
    for name in catalog.tables() if mine else ():
        table = catalog.table(name)
        if name in plan.state_tables or name in ("thumbnails", *OWN_TABLES) or table is None:
            continue
        if name == "sources" or (name == "clips" and plan.decode is not None):
            continue
        for field in table.schema().fields:
            step = mine.get(field.name.lower())
            if step is not None and field.name not in BOOKKEEPING:
                raise UserError(
                    f"{plan.recipe.file}:{step.entry.line}: column {field.name!r} is there already, in table {name!r} "
                    "of this catalog: give this stage another `as`"
                )


def prepare(plan: Plan, catalog: Catalog, sql: Any = None) -> None:
    """Prepares the stages. A column that one wants and that is not there is the recipe's error.

    Without `sql` the recipe begins with sources, and nothing is known of columns yet.
    """
    sources = {row[0] for row in sql.execute("DESCRIBE sources").fetchall()} if sql is not None else ()
    columns = clip_columns(sql) if sql is not None else {}
    context = Context(catalog.uri, sources, columns, manifest_columns(sources, columns))
    stages: list[tuple[StageEntry, Stage]] = [(step.entry, step.stage) for step in plan.steps]
    if plan.decode is not None:
        stages.insert(0, (plan.recipe.entries("sources")[0], plan.decode))
    for entry, stage in stages:
        try:
            stage.prepare(context)
        except SettingsError as error:
            raise UserError(f"{plan.recipe.file}:{entry.line}: {entry.name}: {error}") from error


def manifest_columns(sources: Iterable[str], clips: Collection[str]) -> set[str]:
    """The columns of `clips` that manifests brought, by the columns of `sources`."""
    brought = of_manifests(sources)
    return {prefixed if (prefixed := f"sources_{name}") in clips else name for name in brought}


def clip_columns(sql: Any) -> dict[str, Any]:
    """The columns of the view `clips`, with their Arrow types."""
    empty = sql.sql(f"SELECT * EXCLUDE ({', '.join(JUDGED)}) FROM clips LIMIT 0").to_arrow_table()
    return {field.name: field.type for field in empty.schema}
