"""The plan: a recipe turned into the list of stages that an engine runs, and what they add to the catalog.

Entries that share decoded frames (probe, cut, measure) become one stage, the decode pass.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.errors import UserError, missing_extra
from curate.gates import Gate, GateStage
from curate.recipes import Recipe
from stages.base import Stage
from stages.settings import CutSettings, ProbeSettings

DECODE_PASS = ("probe", "cut", "measure")


@dataclass(frozen=True)
class Plan:
    """Stages in order; the tables they fill; the table that marks a unit as done, and its key."""

    recipe: Recipe
    stages: tuple[Stage, ...]
    mark: str = "sources"
    key: str = "source_id"

    @property
    def columns(self) -> dict[str, dict[str, str]]:
        """Columns that the stages add, by table: name -> Arrow type name."""
        found: dict[str, dict[str, str]] = {}
        for stage in self.stages:
            for table, columns in stage.columns().items():
                found.setdefault(table, {}).update(columns)
        return found

    @property
    def arrow_columns(self) -> dict[str, dict[str, pa.DataType]]:
        return {
            table: {name: pa.type_for_alias(alias) for name, alias in columns.items()}
            for table, columns in self.columns.items()
        }

    @property
    def gates(self) -> list[Gate]:
        """Gates in the order they are judged: those that stages bring along, then the recipe's own."""
        brought = [Gate(name=n, where=sql) for stage in self.stages for n, sql in stage.gates().items()]
        own = [Gate(name=n, where=g.where, unknown=g.unknown) for n, g in self.recipe.gates.items()]
        return brought + own

    @property
    def versions(self) -> dict[str, str]:
        return {name: version for stage in self.stages for name, version in stage.versions().items()}

    @property
    def stages_json(self) -> str:
        return self.recipe.stages_json(self.versions)


def make_plan(recipe: Recipe) -> Plan:
    """Raises UserError for stages in an order that can't work."""
    from stages.decode_pass import DecodePass

    _require_extras(recipe)
    names = [entry.name for entry in recipe.stages]
    for name, needed in (("measure", "cut"), ("gate", "measure")):
        if name in names and needed in names and names.index(name) < names.index(needed):
            line = recipe.stages[names.index(name)].line
            raise UserError(f"{recipe.file}:{line}: stage {name!r} must come after {needed!r}")
    by_name: dict[str, Any] = {entry.name: entry.settings for entry in recipe.stages if entry.name != "gate"}
    later: list[Stage] = []  # stages behind the decode pass, as later parts of clipmill add them
    decode = DecodePass(
        probe=by_name.get("probe", ProbeSettings()),
        cut=by_name.get("cut", CutSettings(detector="none", gradual=False, min_seconds=0, max_seconds=1e9)),
        measures=tuple(by_name.get("measure", ())),
        wants=tuple(want for stage in later if (want := stage.wants()) is not None),
    )
    plan = Plan(recipe, (decode, *later))
    if not plan.gates:
        return plan
    return Plan(recipe, (decode, GateStage(plan.gates, plan.columns["clips"]), *later))


def _require_extras(recipe: Recipe) -> None:
    """Optional packages and weights that the recipe names are looked for before any work."""
    for entry in recipe.stages:
        if entry.name == "probe" and entry.settings.backend == "decord" and not _installed("decord"):
            raise missing_extra("decord", "decord")
        if entry.name == "cut" and entry.settings.detector == "transnetv2":
            from stages.cuts import DetectorMissing, check

            try:
                check(entry.settings)
            except DetectorMissing as error:
                raise UserError(f"{recipe.file}:{entry.line}: {error}") from error


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that was made unavailable on purpose
        return False


def environment() -> dict[str, str]:
    """Versions of what decides results, for the `runs` table."""
    packages = (
        "clipmill",
        "av",
        "opencv-python-headless",
        "scenedetect-headless",
        "numpy",
        "deltalake",
        "ray",
    )
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
