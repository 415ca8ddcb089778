"""The base classes of stages: what a class says of itself, and what a wrong answer of a stage costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import pytest

from stages.base import ClipStage, Column, GlobalStage, ShardStage, SourceStage
from stages.settings import ModelSettings, Settings, TableSettings
from stages.unit import Clip, Row, Source, Unit

S = TypeVar("S", bound="GainSettings")


class GainSettings(ModelSettings):
    gain: float = 2.0


class GainStage(ClipStage[S]):
    """A base class of one room: its settings are named by its subclasses."""


class LoudSettings(GainSettings):
    gain: float = 5.0


class Gain(ClipStage[GainSettings]):
    name = "gain"
    default_table = "gains"

    def signals(self) -> dict[str, Column]:
        return {"gain": Column("double")}

    def score(self, clips: Sequence[Clip]) -> list[Row]:
        found = [{"gain": self.settings.gain * clip.row["start_s"]} for clip in clips]
        return [row for row in found if row["gain"] >= 0]


class Pack(Gain, ShardStage[GainSettings]):
    def gather(self, clips: Iterable[Clip]) -> Iterator[list[Clip]]:
        yield list(clips)

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        return ShardStage.__call__(self, unit)

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        return ShardStage.stream(self, units)


def unit(*starts: float) -> Unit:
    source = Source("s", "film.mp4")
    return Unit("u", [Clip({"clip_id": f"c{at}", "source_id": "s", "start_s": at}, source) for at in starts])


def test_the_settings_of_a_stage_are_those_in_brackets():
    class Loud(GainStage[LoudSettings]): ...

    class Louder(Loud): ...

    assert Gain.settings_type is GainSettings
    assert Loud.settings_type is Louder.settings_type is LoudSettings
    assert GainStage.settings_type is ClipStage.settings_type is ModelSettings
    assert (SourceStage.settings_type, GlobalStage.settings_type) == (Settings, TableSettings)


def test_a_stage_keeps_its_settings_without_a_constructor_of_its_own():
    stage = Gain(GainSettings.model_validate({"as": "mine", "gain": 3, "batch_clips": 7}))
    assert (stage.settings.gain, stage.table, stage.batch_clips) == (3, "mine", 7)
    assert stage.columns() == {"mine": {"mine_gain": "double"}}
    assert Gain(GainSettings()).columns() == {"gains": {"gain": "double"}}


def test_a_column_of_no_type_is_refused_where_it_is_declared():
    with pytest.raises(ValueError, match="one of the types double, int32, int64, bool, string, binary, not 'text'"):
        Column("text")


def test_a_clip_that_score_forgets_fails_and_the_others_of_its_batch_do_not():
    (done,) = Gain(GainSettings()).stream([unit(1.0, -1.0, 2.0)])
    rows = [clip.results["gains"] for clip in done.clips]
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert rows[1]["reason"] == "gain: score gave 0 answers for 1 clips"
    assert [rows[0]["gain"], rows[2]["gain"]] == [2.0, 4.0]


def test_a_shard_whose_answers_do_not_fit_its_clips_fails_as_a_whole():
    good, bad = Pack(GainSettings()).stream([unit(1.0, 2.0), unit(1.0, -1.0)])
    assert good.failure is None and [clip.results["gains"]["gain"] for clip in good.clips] == [2.0, 4.0]
    assert bad.failure == "gain: score gave 1 answers for 2 clips"
    assert not any(clip.results for clip in bad.clips)
