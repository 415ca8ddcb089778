"""The stages a recipe may name: our own, and those that other packages register. Adding one is a line here.

A stage's module is imported when a recipe names it; name, settings and kind are read off its class.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from curate.catalog.gates import GateSettings
from curate.errors import UserError
from curate.recipe.opt_out_settings import OptOutSettings
from stages.base import ClipStage, GlobalStage, ShardStage, SourceStage, TableStage, one_line
from stages.cuts.settings import CutSettings
from stages.decode.settings import ProbeSettings
from stages.measures.registry import MeasureName

Runs = Literal["rights", "sources", "gate", "clips", "shards", "catalog"]
RecipeStage = SourceStage[Any] | TableStage[Any]
ENTRY_POINTS = "clipmill.stages"  # where other packages register stages: NAME = "package.module:Class"

BUILT_IN = {
    "embed": "stages.scores.embed:Embed",
    "aesthetic": "stages.scores.aesthetic:Aesthetic",
    "text": "stages.scores.text_area:TextArea",
    "classify": "stages.scores.classify:Classify",
    "caption": "stages.captions.stage:Caption",
    "encode": "stages.encode.stage:Encode",
    "duplicates": "curate.global_stages.duplicates.stage:Duplicates",
    "clusters": "curate.global_stages.clusters.stage:Clusters",
}


@dataclass(frozen=True)
class StageKind:
    """What may stand in a recipe: how it runs, the type of its settings, and its class.

    `runs`: on sources, on clips, on shards of clips, on the whole catalog, as a gate, or on what is known of the rights
    in sources. Gates, rights and the parts of the decode pass, which the plan puts together, have no class.
    """

    runs: Runs
    settings_type: Any
    stage: type[RecipeStage] | None = None


PARTS = {
    "probe": StageKind("sources", ProbeSettings),
    "cut": StageKind("sources", CutSettings),
    "measure": StageKind("sources", list[MeasureName]),
    "gate": StageKind("gate", dict[str, GateSettings]),
    "opt_outs": StageKind("rights", OptOutSettings),
}
_BASES: dict[type[RecipeStage], Runs] = {
    SourceStage: "sources",
    ShardStage: "shards",  # before ClipStage, of which it is one
    ClipStage: "clips",
    GlobalStage: "catalog",
}


class _Kinds(Mapping[str, StageKind]):
    """Kinds of stage by name. Raises UserError for a registered stage that can't be used."""

    def __getitem__(self, name: str) -> StageKind:
        registered = _registered(tuple(sys.path)).get(name, ())
        if (name in PARTS or name in BUILT_IN) and registered:
            raise UserError(
                f"stage {name!r} is clipmill's own, and {_whose(registered[0])} registers one of the same name: "
                "give that one another name, or uninstall the package"
            )
        if len(registered) > 1:
            raise UserError(
                f"stage {name!r} is registered by {_whose(registered[0])} and by {_whose(registered[1])}: "
                "uninstall one of them"
            )
        if name in PARTS:
            return PARTS[name]
        if name in BUILT_IN:
            module, _, class_name = BUILT_IN[name].partition(":")
            stage = getattr(importlib.import_module(module), class_name)
            if stage.name != name:
                raise UserError(
                    f"{BUILT_IN[name]} calls itself {stage.name!r}, but the registry {name!r}: use one name"
                )
            return _kind(stage)
        if not registered:
            raise KeyError(name)
        return _load(registered[0])

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*PARTS, *BUILT_IN, *_registered(tuple(sys.path))])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in set(self)


def _load(entry: EntryPoint) -> StageKind:
    """The stage behind an entry point. Another package's import may raise anything."""
    try:
        stage = entry.load()
    except Exception as error:
        raise UserError(
            f"stage {entry.name!r} of {_whose(entry)} can't be imported from {entry.value}: "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error
    if not (isinstance(stage, type) and issubclass(stage, SourceStage | TableStage) and _runs(stage)):
        raise UserError(
            f"stage {entry.name!r} of {_whose(entry)}: {entry.value} must be a subclass of "
            f"{', '.join(base.__name__ for base in _BASES)}"
        )
    if getattr(stage, "name", None) != entry.name:
        raise UserError(
            f"stage {entry.name!r} of {_whose(entry)}: its class says name = {getattr(stage, 'name', None)!r}; "
            "class and entry point must give the same name"
        )
    return _kind(stage)


def _kind(stage: type[RecipeStage]) -> StageKind:
    runs = _runs(stage)
    assert runs is not None
    return StageKind(runs, stage.settings_type, stage)


def _runs(stage: type[RecipeStage]) -> Runs | None:
    return next((runs for base, runs in _BASES.items() if issubclass(stage, base)), None)


def _whose(entry: EntryPoint) -> str:
    return f"package {entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unnamed package"


@lru_cache(maxsize=8)
def _registered(path: tuple[str, ...]) -> dict[str, list[EntryPoint]]:
    """The entry points of packages on sys.path, by name; one that is found twice in the same package counts once."""
    found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, {}).setdefault((_whose(entry), entry.value), entry)
    return {name: list(entries.values()) for name, entries in found.items()}


KINDS: Mapping[str, StageKind] = _Kinds()
