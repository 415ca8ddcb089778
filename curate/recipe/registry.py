"""The stages a recipe may name: where their settings and code lie, and where they run.

Nothing of a stage is imported before a recipe names it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from curate.catalog.gates import GateSettings
from curate.errors import UserError
from stages.measures.settings import MeasureName

Runs = Literal["sources", "gate", "clips", "shards", "catalog"]
ENTRY_POINTS = "clipmill.stages"  # where other packages register stages: NAME = "package.module:KIND"


@dataclass(frozen=True)
class StageKind:
    """`runs`: on sources (in the decode pass), on clips, on shards of clips, on the whole catalog, or as a gate.

    `settings` is a type, or 'module:name' of one; `stage` is 'module:name' of the stage's class.
    """

    runs: Runs
    settings: Any
    stage: str = ""

    @property
    def settings_type(self) -> Any:
        return _named(self.settings) if isinstance(self.settings, str) else self.settings

    def make(self, settings: Any) -> Any:
        """The stage itself; its `check()` says what it lacks here."""
        return _named(self.stage)(settings)


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


_SCORES, _GLOBAL = "stages.scores", "curate.global_stages"
BUILT_IN: dict[str, StageKind] = {
    "probe": StageKind("sources", "stages.decode.settings:ProbeSettings"),
    "cut": StageKind("sources", "stages.cuts.settings:CutSettings"),
    "measure": StageKind("sources", list[MeasureName]),
    "gate": StageKind("gate", dict[str, GateSettings]),
    "embed": StageKind("clips", f"{_SCORES}.settings:EmbedSettings", f"{_SCORES}.embed:Embed"),
    "aesthetic": StageKind("clips", f"{_SCORES}.settings:AestheticSettings", f"{_SCORES}.aesthetic:Aesthetic"),
    "text": StageKind("clips", f"{_SCORES}.settings:TextAreaSettings", f"{_SCORES}.text_area:TextArea"),
    "classify": StageKind("clips", f"{_SCORES}.settings:ClassifySettings", f"{_SCORES}.classify:Classify"),
    "caption": StageKind("clips", "stages.captions.settings:CaptionSettings", "stages.captions.stage:Caption"),
    "encode": StageKind("shards", "stages.encode.settings:EncodeSettings", "stages.encode.stage:Encode"),
    "duplicates": StageKind(
        "catalog", f"{_GLOBAL}.duplicates.settings:DuplicateSettings", f"{_GLOBAL}.duplicates.stage:Duplicates"
    ),
    "clusters": StageKind(
        "catalog", f"{_GLOBAL}.clusters.settings:ClusterSettings", f"{_GLOBAL}.clusters.stage:Clusters"
    ),
}


class _Kinds(Mapping[str, StageKind]):
    """Our own stages, and those that installed packages register; a package is imported when its stage is named."""

    def __getitem__(self, name: str) -> StageKind:
        if name in BUILT_IN:
            return BUILT_IN[name]
        found = self._others()[name].load()
        if not isinstance(found, StageKind):
            raise UserError(f"the entry point {name!r} of {ENTRY_POINTS} must name a StageKind, not {found!r}")
        return found

    def __iter__(self) -> Iterator[str]:
        yield from BUILT_IN
        yield from (name for name in self._others() if name not in BUILT_IN)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @staticmethod
    def _others() -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


KINDS: Mapping[str, StageKind] = _Kinds()
