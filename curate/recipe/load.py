"""Recipes: pipelines.yaml read and checked as a whole before any work starts, errors with file and line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from curate.catalog.gates import GateSettings
from curate.errors import UserError, did_you_mean
from curate.recipe.registry import KINDS
from curate.recipe.yaml_lines import Path_, read_yaml

SHIPPED = Path(__file__).with_name("pipelines.yaml")  # the recipes of a folder without a pipelines.yaml
RECIPE_KEYS = ("input", "select", "stages", "extensions")


@dataclass(frozen=True)
class StageEntry:
    """One entry of a recipe's `stages`: its name, its checked settings, and its line in the file."""

    name: str
    settings: Any
    line: int

    @property
    def runs(self) -> str:
        return KINDS[self.name].runs

    @property
    def label(self) -> str:
        """What tells two stages of one name apart: the table that each is to fill."""
        return getattr(self.settings, "table", None) or self.name

    def as_json(self) -> Any:
        """The settings that decide what rows the stage makes."""
        left_out = set(getattr(self.settings, "judged", ())) or None
        return TypeAdapter(KINDS[self.name].settings_type).dump_python(self.settings, mode="json", exclude=left_out)


@dataclass(frozen=True)
class Recipe:
    name: str
    file: str
    text: str
    inputs: tuple[str, ...]
    stages: tuple[StageEntry, ...]
    extensions: tuple[str, ...] | None = None
    gate_lines: dict[str, int] = field(default_factory=dict)
    select: str | None = None  # SQL for the clips that a later recipe takes; None: the recipe takes sources
    select_line: int = 0

    @property
    def gates(self) -> dict[str, GateSettings]:
        """Every gate of the recipe in order, by name."""
        return {k: g for entry in self.stages if entry.name == "gate" for k, g in entry.settings.items()}

    def entries(self, *runs: str) -> list[StageEntry]:
        """The stages that run in one of these ways (see registry.StageKind), in order."""
        return [entry for entry in self.stages if entry.runs in runs]


def stages_json(entries: Iterable[StageEntry], versions: dict[str, str]) -> str:
    """What makes rows of a table comparable: the stages that fill it, with every setting filled in."""
    return json.dumps({"stages": [{e.name: e.as_json()} for e in entries], "versions": versions}, sort_keys=True)


def settings_hash(stages_json: str) -> str:
    return hashlib.sha256(stages_json.encode()).hexdigest()[:16]


def load_recipes(path: str | Path | None, names: list[str], overrides: tuple[str, ...] = ()) -> list[Recipe]:
    """The named recipes of a pipelines file (None: the one in this folder, else the one clipmill ships).

    Raises UserError with file and line for an unknown key, a wrong type or value, or an unknown recipe.
    """
    file = pipelines_file(path)
    text, data, lines = read_yaml(file)
    return _Checker(str(file), text, data, lines).recipes(names, overrides)


def pipelines_file(path: str | Path | None) -> Path:
    """The file that is named, else pipelines.yaml of this folder, else the one that clipmill ships."""
    if path is not None:
        return Path(path)
    here = Path("pipelines.yaml")
    return here if here.exists() else SHIPPED


class _Checker:
    def __init__(self, file: str, text: str, data: Any, lines: dict[Path_, int]):
        self.file, self.text, self.data, self.lines = file, text, data, lines

    def error(self, at: Path_, message: str) -> UserError:
        while at and at not in self.lines:
            at = at[:-1]
        return UserError(f"{self.file}:{self.lines.get(at, 1)}: {message}")

    def recipes(self, names: list[str], overrides: tuple[str, ...]) -> list[Recipe]:
        if not isinstance(self.data, dict) or not isinstance(self.data.get("recipes"), dict):
            raise self.error((), "expected a mapping with the key `recipes`")
        for key in self.data:
            if key != "recipes":
                raise self.error((key,), f"unknown key {key!r}; expected `recipes`")
        known = self.data["recipes"]
        for name in names:
            if name not in known:
                raise UserError(f"{self.file}: no recipe {name!r}{did_you_mean(name, known)}")
        left = {self._split(text)[0]: text for text in overrides}
        # the whole file is checked, not only what runs
        found = [self.recipe(name, overrides if name in names else (), left) for name in known]
        if left:
            text = next(iter(left.values()))
            there = sorted({entry.label for recipe in found if recipe.name in names for entry in recipe.stages})
            raise UserError(f"--set {text}: no such stage in {', '.join(names)}; there is {', '.join(there)}")
        return sorted((r for r in found if r.name in names), key=lambda r: names.index(r.name))

    def recipe(self, name: str, overrides: tuple[str, ...], left: dict[Any, str]) -> Recipe:
        at: Path_ = ("recipes", name)
        body = self.data["recipes"][name]
        if not isinstance(body, dict):
            raise self.error(at, f"recipe {name!r} must be a mapping with `stages`")
        for key in body:
            if key not in RECIPE_KEYS:
                raise self.error((*at, key), f"unknown key {key!r} in recipe {name!r}{did_you_mean(key, RECIPE_KEYS)}")
        stages = body.get("stages")
        if not isinstance(stages, list) or not stages:
            raise self.error(at, f"recipe {name!r} needs `stages`, a list such as [probe, cut, measure: [motion]]")
        sets: dict[str, dict[str, Any]] = {}
        for text in overrides:
            (stage, key), value = self._split(text)
            sets.setdefault(stage, {})[key] = value
        entries = [self.stage((*at, "stages", i), item, sets, left) for i, item in enumerate(stages)]
        seen: set[str] = set()
        for index, entry in enumerate(entries):
            if entry.label in seen and entry.name != "gate":
                fix = ": give one of them another name with `as`" if entry.runs in ("clips", "shards") else ""
                raise self.error((*at, "stages", index), f"stage {entry.label!r} stands twice in recipe {name!r}{fix}")
            seen.add(entry.label)
        gates: dict[str, int] = {}
        for index, entry in enumerate(entries):
            for gate in entry.settings if entry.name == "gate" else ():
                if "." in gate:
                    place = (*at, "stages", index, "gate", gate)
                    raise self.error(place, f"gate {gate!r}: names with a dot are those of stages; take another")
                if gate in gates:
                    raise self.error((*at, "stages", index, "gate", gate), f"gate {gate!r} stands twice")
                path: Path_ = (*at, "stages", index, "gate", gate)
                gates[gate] = self.lines.get(path, entry.line)
        inputs = self._strings((*at, "input"), body.get("input"))
        extensions = self._strings((*at, "extensions"), body.get("extensions"))
        select = self._select(at, body, entries)
        return Recipe(
            name,
            self.file,
            self.text,
            inputs,
            tuple(entries),
            endings(extensions),
            gates,
            select,
            self.lines.get((*at, "select"), self.lines[at]),
        )

    def _select(self, at: Path_, body: dict[str, Any], entries: list[StageEntry]) -> str | None:
        """A recipe takes sources (`input`) through the decode pass, or clips (`select`) through what follows."""
        select = body.get("select")
        decoding = [entry for entry in entries if entry.runs in ("sources", "rights")]
        if select is None:
            if not any(entry.runs == "sources" for entry in decoding):
                wanted = "select: SELECT * FROM clips WHERE verdict = 'kept'"
                raise self.error(at, f"recipe {at[-1]!r} decodes nothing (no probe, cut or measure): add `{wanted}`")
            return None
        if not isinstance(select, str) or not select.strip():
            raise self.error((*at, "select"), f"select must be SQL that gives clip_id, got {select!r}")
        for key in ("input", "extensions"):
            if key in body:
                raise self.error((*at, key), f"a recipe has `select` or `{key}`, not both")
        if decoding:
            name, line = decoding[0].name, decoding[0].line
            raise UserError(f"{self.file}:{line}: stage {name!r} takes sources, but this recipe has `select`")
        return select

    def stage(self, at: Path_, item: Any, sets: dict[str, dict[str, Any]], left: dict[Any, str]) -> StageEntry:
        if isinstance(item, str):
            name, given = item, None
        elif isinstance(item, dict) and len(item) == 1:
            name, given = next(iter(item.items()))
        else:
            raise self.error(at, "a stage is a name, or a name with its settings, such as `probe: {min_seconds: 2}`")
        if name not in KINDS:
            raise self.error((*at, name), f"unknown stage {name!r}{did_you_mean(name, KINDS)}")
        try:
            adapter = TypeAdapter(KINDS[name].settings_type)
        except UserError as error:
            raise self.error((*at, name), str(error)) from error
        empty: Any = [] if name == "measure" else {}
        given = empty if given is None else given
        label = given.get("as", name) if isinstance(given, dict) else name
        changes: dict[str, Any] = {}
        for called in dict.fromkeys((name, label)) if isinstance(label, str) else (name,):
            changes |= sets.get(called, {})
            for key in sets.get(called, {}):
                left.pop((called, key), None)
        if changes:
            if not isinstance(given, dict):
                raise UserError(f"--set {name}.…: stage {name!r} takes a list, not single settings")
            for key, value in changes.items():
                given = _changed(given, key, value)
        try:
            settings = adapter.validate_python(given)
        except ValidationError as error:
            raise self._explain((*at, name), name, error, changes) from error
        if name == "measure" and len(set(settings)) < len(settings):
            raise self.error((*at, name), "measure: a signal stands twice")
        return StageEntry(name, settings, self.lines.get(at, 1))

    def _explain(self, at: Path_, name: str, error: ValidationError, sets: dict[str, Any]) -> UserError:
        first = error.errors()[0]
        loc = [part for part in first["loc"] if not str(part).startswith(("function-", "constrained-"))]
        setting = ".".join(str(part) for part in [name, *loc])
        if first["type"] == "extra_forbidden":
            message = f"unknown setting {setting!r}{did_you_mean(str(loc[-1]), _fields(KINDS[name].settings_type))}"
        else:
            said = first["msg"].removeprefix("Value error, ")
            if name == "gate" and "GateSettings" in said:
                said = 'expected SQL such as "motion >= 0.25", or {where: SQL, unknown: drop}'
            value = "" if first["type"] == "value_error" else f", got {first['input']!r}"
            message = f"{setting}: {said[0].lower() + said[1:]}{value}"
        for key, value in sets.items():
            if f"{setting}.".startswith(f"{name}.{key}.") or f"{name}.{key}.".startswith(f"{setting}."):
                return UserError(f"--set {name}.{key}={value}: {message}")
        return self.error((*at, *loc), message)

    def _strings(self, at: Path_, value: Any) -> tuple[str, ...]:
        values = [] if value is None else value if isinstance(value, list) else [value]
        for item in values:
            if not isinstance(item, str):
                raise self.error(at, f"{at[-1]} must be a string or a list of strings, got {item!r}")
        return tuple(values)

    @staticmethod
    def _split(text: str) -> tuple[tuple[str, str], Any]:
        name, equals, value = text.partition("=")
        stage, dot, key = name.partition(".")
        if not (equals and dot and stage and key):
            raise UserError(f"--set {text}: expected STAGE.SETTING=VALUE, such as cut.min_seconds=0.5")
        try:
            return (stage, key), yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"--set {text}: the value is not valid YAML") from error


def _changed(given: Any, key: str, value: Any) -> dict[str, Any]:
    """Settings with one of them replaced; `text.model` is the `model` inside `text`."""
    outer, dot, inner = key.partition(".")
    kept = given if isinstance(given, dict) else {}
    return {**kept, outer: _changed(kept.get(outer), inner, value) if dot else value}


def _fields(settings_type: Any) -> list[str]:
    """The settings of a stage as a recipe spells them."""
    fields = getattr(settings_type, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def endings(extensions: tuple[str, ...]) -> tuple[str, ...] | None:
    """A recipe's `extensions` as file names end: ('.mp4', …); None where it names none."""
    return tuple("." + one.lower().lstrip(".") for one in extensions) or None
