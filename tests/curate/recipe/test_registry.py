"""The registry: stages of other packages are found by their entry points, and each of ours by one line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from curate.errors import UserError
from curate.recipe.load import load_recipes
from curate.recipe.plan import make_plan
from curate.recipe.registry import BUILT_IN, KINDS
from stages.base import ClipStage, GlobalStage, ShardStage, TableStage
from stages.measures.registry import MEASURES, measure_classes
from stages.settings import ModelSettings, Settings
from tests.curate.running import ask, make_folder

ROOT = Path(__file__).resolve().parents[3]
SHOUT = """
from stages.base import ClipStage, Column
from stages.frames import FrameRequest
from stages.settings import ModelSettings

class ShoutSettings(ModelSettings):
    word: str = "hey"

class Shout(ClipStage[ShoutSettings]):
    name = "shout"
    default_table = "shouts"
    def wants(self):
        return FrameRequest((0.5,), 32)
    def signals(self):
        return {"shout": Column("string"), "shout_frames": Column("int32")}
    def score(self, clips):
        return [{"shout": self.settings.word.upper(), "shout_frames": len(clip.frames)} for clip in clips]
"""
HALVES = """
from stages.base import Column, SourceStage
from stages.settings import Settings

class HalvesSettings(Settings):
    seconds: float = 1.0

class Halves(SourceStage[HalvesSettings]):
    name = "halves"
    def signals(self):
        return {"half": Column("string")}
    def __call__(self, unit):
        ticks = int(self.settings.seconds * 12288)
        for number, name in enumerate(("first", "second")):
            start, end = number * ticks, (number + 1) * ticks
            columns = {"media": "video", "start_s": start / 12288, "end_s": end / 12288, "half": name}
            columns |= {"time_base_num": 1, "time_base_den": 12288, "width": 96, "height": 72}
            unit.clips.append(unit.source.new_clip(start, end, columns))
        unit.scanned = {"media": "video"}
        yield unit
"""
BEGIN = "recipes:\n  ingest:\n    stages:\n"
DECODE = "      - probe\n      - cut\n      - measure: [motion]\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A package as pip installs it, in a folder of its own on sys.path: its modules and the stages it registers."""

    def make(package: str, stages: dict[str, str], modules: dict[str, str]) -> Path:
        folder = tmp_path / f"site_{package}"
        about = folder / f"{package}-1.2.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        lines = [f"{name} = {value}" for name, value in stages.items()]
        (about / "entry_points.txt").write_text("\n".join(["[clipmill.stages]", *lines, ""]))
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(folder)
        return folder

    yield make
    for name in ("shouting", "halving", "other_shouting"):
        sys.modules.pop(name, None)


def recipe_with(tmp_path: Path, stages: str) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(BEGIN + stages)
    return file


def refused(tmp_path: Path, stages: str = DECODE + "      - shout\n") -> str:
    file = recipe_with(tmp_path, stages)
    with pytest.raises(UserError) as caught:
        make_plan(load_recipes(file, ["ingest"])[0])
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{file}:")


@pytest.mark.slow
def test_the_stages_of_an_installed_package_run_by_their_names(tmp_path, install):
    stages = {"shout": "shouting:Shout", "halves": "halving:Halves"}
    site = install("shouters", stages, {"shouting": SHOUT, "halving": HALVES})
    films = make_folder(tmp_path / "films", films=2)
    (films / "broken.mp4").unlink()
    text = "      - halves: {seconds: 1}\n      - gate: {early: \"half = 'first'\"}\n"
    text += "      - shout: {word: hello}\n      - shout: {as: loud}\n"
    catalog = str(tmp_path / "catalog")
    command = [sys.executable, "-m", "curate.cli", "run", "ingest", "--catalog", catalog, "--engine", "inline"]
    command += ["--input", str(films), "--pipelines", str(recipe_with(tmp_path, text))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = ask(catalog, "SELECT half, verdict, shout, loud_shout, shout_frames FROM clips ORDER BY uri, start_s")
    first, second = ("first", "kept", "HELLO", "HEY", 1), ("second", "dropped", None, None, None)
    assert rows == [first, second] * 2


def test_a_package_is_imported_only_when_a_recipe_names_its_stage(tmp_path, install):
    install("shouters", {"shout": "shouting:Shout"}, {"shouting": "raise RuntimeError('not today')"})
    make_plan(load_recipes(recipe_with(tmp_path, DECODE), ["ingest"])[0])
    said = refused(tmp_path)
    assert said.startswith("7: stage 'shout' of package shouters 1.2 can't be imported from shouting:Shout: ")
    assert said.endswith("RuntimeError: not today")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("", "has no attribute 'Shout'"),
        ("def Shout(): ...", "shouting:Shout must be a subclass of SourceStage, ShardStage, ClipStage, GlobalStage"),
        (SHOUT.replace('"shout"\n', '"whisper"\n'), "its class says name = 'whisper'"),
    ],
)
def test_a_broken_entry_point_is_one_line_with_its_package(tmp_path, install, module, said):
    install("shouters", {"shout": "shouting:Shout"}, {"shouting": module})
    assert said in refused(tmp_path) and "package shouters 1.2" in refused(tmp_path)


def test_a_name_of_our_own_is_not_taken_over(tmp_path, install):
    install("shouters", {"duplicates": "shouting:Shout", "cut": "shouting:Shout"}, {"shouting": SHOUT})
    assert "5: stage 'cut' is clipmill's own, and package shouters 1.2 registers one" in refused(tmp_path, DECODE)
    text = "    select: SELECT * FROM clips\n    stages:\n      - duplicates\n"
    (tmp_path / "mine.yaml").write_text(BEGIN.replace("    stages:\n", text))
    with pytest.raises(UserError, match="stage 'duplicates' is clipmill's own"):
        load_recipes(tmp_path / "mine.yaml", ["ingest"])


def test_two_packages_with_one_name_are_both_named(tmp_path, install):
    install("shouters", {"shout": "shouting:Shout"}, {"shouting": SHOUT})
    install("criers", {"shout": "other_shouting:Shout"}, {"other_shouting": SHOUT})
    said = refused(tmp_path)
    assert "package shouters 1.2" in said and "package criers 1.2" in said


def test_an_unknown_stage_is_answered_with_the_nearest_of_all_packages(tmp_path, install):
    install("shouters", {"shout": "shouting:Shout"}, {"shouting": SHOUT})
    assert refused(tmp_path, DECODE + "      - shuot\n") == "7: unknown stage 'shuot'; did you mean 'shout'?"
    assert refused(tmp_path, DECODE + "      - ebmed\n").endswith("did you mean 'embed'?")


def test_settings_of_another_package_are_checked_as_ours(tmp_path, install):
    install("shouters", {"shout": "shouting:Shout"}, {"shouting": SHOUT})
    said = refused(tmp_path, DECODE + "      - shout: {wrod: hello}\n")
    assert said == "7: unknown setting 'shout.wrod'; did you mean 'word'?"


def test_a_stage_that_finds_the_clips_by_itself_stands_without_the_decode_pass(tmp_path, install):
    install("shouters", {"halves": "halving:Halves"}, {"halving": HALVES})
    assert "finds the clips of a source by itself: take 'probe' out" in refused(tmp_path, DECODE + "      - halves\n")
    late = "      - gate: {early: \"half = 'first'\"}\n      - halves\n"
    assert refused(tmp_path, late) == "4: stage 'gate' must come after 'halves'"


def test_the_settings_of_a_stage_are_found_without_importing_other_stages():
    code = """
        import sys
        from curate.recipe.registry import BUILT_IN, KINDS
        modules = {path.partition(":")[0] for path in BUILT_IN.values()}
        for name in sys.argv[1:]:
            before = set(sys.modules)
            KINDS[name].settings_type
            others = (set(sys.modules) - before) & modules - {BUILT_IN[name].partition(":")[0]}
            assert not others, (name, others)
        heavy = set(sys.modules) & {"av", "cv2", "open_clip", "ray", "torch", "transformers"}
        assert not heavy, heavy
    """
    for names in (list(BUILT_IN), list(BUILT_IN)[::-1]):  # each stage before and after each other one
        subprocess.run([sys.executable, "-c", textwrap.dedent(code), *names], check=True)


@pytest.mark.parametrize("name", BUILT_IN)
def test_name_kind_and_settings_of_our_own_stages_are_read_off_their_classes(name):
    kind = KINDS[name]
    assert kind.stage is not None and issubclass(kind.stage, TableStage) and kind.stage.name == name
    bases = {"clips": ClipStage, "shards": ShardStage, "catalog": GlobalStage}
    assert issubclass(kind.stage, bases[kind.runs])
    assert issubclass(kind.settings_type, Settings) and kind.settings_type not in (Settings, ModelSettings)


def test_each_measure_is_registered_by_its_name_and_says_what_its_columns_mean():
    for name, measure in zip(MEASURES, measure_classes(MEASURES), strict=True):
        assert measure.name == name
        assert all(column.meaning for column in measure.columns.values())
