"""Where a run comes from: its id, and the networks that it began with or learned from, as its config.json records."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.files import read_object

START, TEACHER = "start", "teacher"
CONFIG, MODEL = "config.json", "model"  # of a run folder
BALANCED = "balanced"  # in CONFIG: what `batch_size: balanced` measured and chose
RUN_ID, LEARNED_FROM, MODELS = "run_id", "learned_from", "models.json"


@dataclass(frozen=True)
class Ancestor:
    """A network that a run began with (`how` "start") or learned from ("teacher")."""

    how: str
    path: str  # absolute, of the folder or file that was named
    run_id: str | None  # of the run that trained it; None where nothing beside its weights says so
    step: int | None  # that its weights are of
    fingerprint: str | None  # of its weights


def ancestor(path: str | Path, how: str) -> Ancestor:
    """What is recorded of the network at `path`: a run, its folder model/ or a copy of that, or a file of weights."""
    place = Path(path).absolute()
    model = model_folder(place)
    about = read_object(model / CONFIG)
    extra, fingerprint = about.get("extra", {}), about.get("fingerprint")
    run = model.parent  # a VAE's model does not say which run made it
    step = models_of(run).get(str(fingerprint))
    if step is not None:
        return Ancestor(how, str(place), read_object(run / CONFIG).get(RUN_ID), step, fingerprint)
    return Ancestor(how, str(place), extra.get(RUN_ID), extra.get("step"), fingerprint)


def model_folder(path: str | Path) -> Path:
    """The folder with the weights: `path`, or its model/ where it is a run."""
    place = Path(path)
    return place / MODEL if (place / MODEL / CONFIG).is_file() else place


def run_id(folder: Path) -> str:
    """The id of the run in the folder, or one for a new run."""
    return read_object(folder / CONFIG).get(RUN_ID) or uuid.uuid4().hex


def about_run(folder: Path, ancestors: Sequence[Ancestor], resumed: bool, **more: Any) -> dict[str, Any]:
    """What config.json records beside the settings. A resumed run keeps the ancestors of its beginning, which may have
    been trained on since.
    """
    found = read_object(folder / CONFIG).get(LEARNED_FROM) if resumed else None
    return {
        RUN_ID: run_id(folder),
        LEARNED_FROM: [asdict(each) for each in ancestors] if found is None else found,
        **more,
    }


def ancestors_of(config: Mapping[str, Any]) -> list[Ancestor]:
    """Those that a run's config.json records."""
    return [Ancestor(**each) for each in config.get(LEARNED_FROM, ())]


def models_of(folder: Path) -> dict[str, int]:
    """Fingerprint -> step of every network that a run of a VAE has written to model/."""
    return read_object(folder / MODELS)
