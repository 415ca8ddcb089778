"""The stages a recipe may name: where their settings and code lie, and where they run.

Nothing of a stage is imported before a recipe names it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from curate.catalog.gates import GateSettings
from stages.measures.settings import MeasureName


@dataclass(frozen=True)
class StageKind:
    """`runs`: in the decode pass, on clips one by one, over all clips at once, or as a gate.

    `settings` is a type, or 'module:name' of one; `stage` is 'module:name' of the stage's class.
    """

    runs: Literal["decode", "gate", "clips", "set"]
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
KINDS: dict[str, StageKind] = {
    "probe": StageKind("decode", "stages.decode.settings:ProbeSettings"),
    "cut": StageKind("decode", "stages.cuts.settings:CutSettings"),
    "measure": StageKind("decode", list[MeasureName]),
    "gate": StageKind("gate", dict[str, GateSettings]),
    "embed": StageKind("clips", f"{_SCORES}.embed:EmbedSettings", f"{_SCORES}.embed:Embed"),
    "aesthetic": StageKind("clips", f"{_SCORES}.aesthetic:AestheticSettings", f"{_SCORES}.aesthetic:Aesthetic"),
    "text": StageKind("clips", f"{_SCORES}.text_area:TextSettings", f"{_SCORES}.text_area:TextArea"),
    "classify": StageKind("clips", f"{_SCORES}.classify:ClassifySettings", f"{_SCORES}.classify:Classify"),
    "caption": StageKind("clips", "stages.captions.settings:CaptionSettings", "stages.captions.stage:Caption"),
    "encode": StageKind("clips", "stages.encode.settings:EncodeSettings", "stages.encode.stage:Encode"),
    "duplicates": StageKind(
        "set", f"{_GLOBAL}.duplicates.settings:DuplicateSettings", f"{_GLOBAL}.duplicates.stage:Duplicates"
    ),
    "clusters": StageKind("set", f"{_GLOBAL}.clusters.settings:ClusterSettings", f"{_GLOBAL}.clusters.stage:Clusters"),
}
