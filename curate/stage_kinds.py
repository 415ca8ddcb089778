"""The stages a recipe may name: where their settings and code lie, and where they run.

Nothing of a stage is imported before a recipe names it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from curate.gates import GateSettings
from stages.settings import CutSettings, MeasureName, ProbeSettings


@dataclass(frozen=True)
class StageKind:
    """`runs`: in the decode pass, on clips one by one, over all clips at once, or as a gate."""

    runs: Literal["decode", "gate", "clips", "set"]
    settings: Any  # a type, or the name of one in `module`
    module: str = ""
    stage: str = ""

    @property
    def settings_type(self) -> Any:
        return getattr(importlib.import_module(self.module), self.settings) if self.module else self.settings

    def make(self, settings: Any) -> Any:
        """The stage itself; its `check()` says what it lacks here."""
        return getattr(importlib.import_module(self.module), self.stage)(settings)


KINDS: dict[str, StageKind] = {
    "probe": StageKind("decode", ProbeSettings),
    "cut": StageKind("decode", CutSettings),
    "measure": StageKind("decode", list[MeasureName]),
    "gate": StageKind("gate", dict[str, GateSettings]),
    "embed": StageKind("clips", "EmbedSettings", "stages.embed", "Embed"),
    "aesthetic": StageKind("clips", "AestheticSettings", "stages.aesthetic", "Aesthetic"),
    "text": StageKind("clips", "TextSettings", "stages.text_area", "TextArea"),
    "classify": StageKind("clips", "ClassifySettings", "stages.classify", "Classify"),
    "caption": StageKind("clips", "CaptionSettings", "stages.captions", "Caption"),
    "encode": StageKind("clips", "EncodeSettings", "stages.encode", "Encode"),
    "duplicates": StageKind("set", "DuplicateSettings", "curate.duplicates", "Duplicates"),
    "clusters": StageKind("set", "ClusterSettings", "curate.clusters", "Clusters"),
}
