import pytest

from curate.errors import UserError
from curate.recipe.load import load_recipes
from curate.recipe.plan import make_plan

GOOD = """\
recipes:
  ingest:
    input: videos/
    stages:
      - probe: {min_seconds: 2}
      - cut: {detector: adaptive}
      - measure: [motion]
      - gate:
          moving: "motion >= 0.25"
"""


def load(tmp_path, text, names=("ingest",), overrides=()):
    file = tmp_path / "pipelines.yaml"
    file.write_text(text)
    return load_recipes(file, list(names), tuple(overrides))


def test_the_recipe_that_ships_is_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipes(None, ["ingest"])[0].name == "ingest"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("min_seconds: 2}", "min_secnds: 2}", 5, ["probe.min_secnds", "did you mean 'min_seconds'"]),
        ("min_seconds: 2}", "min_seconds: two}", 5, ["probe.min_seconds", "number", "'two'"]),
        ("min_seconds: 2}", "min_seconds: -1}", 5, ["probe.min_seconds", "greater than or equal to 0", "-1"]),
        ("detector: adaptive", "detector: adaptve", 6, ["cut.detector", "'adaptive'", "'adaptve'"]),
        ("detector: adaptive", "detector: fixed", 6, ["`seconds`"]),
        ("detector: adaptive", "max_seconds: 1", 6, ["max_seconds (1) must be above min_seconds (2)"]),
        ("[motion]", "[motion, motoin]", 7, ["measure.1", "no measure is called 'motoin'", "sharpness"]),
        ("[motion]", "[motion, motion]", 7, ["twice"]),
        ("- measure", "- mesure", 7, ["unknown stage 'mesure'", "did you mean 'measure'"]),
        ("input:", "inputs:", 3, ["unknown key 'inputs'", "did you mean 'input'"]),
        ("recipes:", "recipe:", 1, ["expected", "recipes"]),
        ("input: videos/", "input: 7", 3, ["input must be a string", "7"]),
        ('"motion >= 0.25"', "{where: motion, unknwn: keep}", 9, ["unknwn"]),
        ("input: videos/", "input: a\n    input: b", 4, ["'input' is given twice"]),
        ("[motion]", "[motion", 8, ["not valid YAML"]),
    ],
)
def test_a_wrong_recipe_names_the_line_and_what_was_expected(tmp_path, old, new, line, words):
    with pytest.raises(UserError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    text = str(caught.value)
    assert f"pipelines.yaml:{line}:" in text
    assert "\n" not in text
    for word in words:
        assert word in text


def test_recipes_that_are_not_run_are_checked_too(tmp_path):
    other = GOOD + "  other:\n    stages:\n      - nonsense\n"
    with pytest.raises(UserError, match=r":12: unknown stage 'nonsense'"):
        load(tmp_path, other)


def test_an_unknown_recipe_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match="no recipe 'ingets'; did you mean 'ingest'"):
        load(tmp_path, GOOD, names=["ingets"])


def test_set_changes_one_setting_and_is_checked_like_the_file(tmp_path):
    recipe = load(tmp_path, GOOD, overrides=["cut.min_seconds=0.5", "cut.detector=content"])[0]
    assert recipe.stages[1].settings.min_seconds == 0.5
    assert recipe.stages[1].settings.detector == "content"
    for wrong, words in [
        ("cut.min_seconds=x", "--set cut.min_seconds=x"),
        ("cut.nothing=1", "cut.nothing"),
        ("cat.min_seconds=1", "no such stage"),
        ("cut", "expected STAGE.SETTING=VALUE"),
    ]:
        with pytest.raises(UserError, match=words):
            load(tmp_path, GOOD, overrides=[wrong])


def test_set_reaches_a_setting_inside_another_and_leaves_the_rest(tmp_path):
    text = GOOD + "      - caption: {source: manifest, manifest: {column: alt, sidecar: .txt}}\n"
    caption = load(tmp_path, text, overrides=["caption.manifest.column=title"])[0].stages[-1].settings
    assert caption.manifest.column == "title" and caption.manifest.sidecar == ".txt"
    with pytest.raises(UserError, match=r"--set caption.manifest.colum=title: unknown setting"):
        load(tmp_path, text, overrides=["caption.manifest.colum=title"])
    with pytest.raises(UserError, match=r"--set caption.source.x=1: caption.source"):
        load(tmp_path, text, overrides=["caption.source.x=1"])


def test_only_stages_make_rows_incomparable_not_gates(tmp_path):
    def made_by(text):
        return make_plan(load(tmp_path, text)[0]).state_tables["sources"].settings

    assert made_by(GOOD) == made_by(GOOD.replace("0.25", "0.5"))
    assert made_by(GOOD) == made_by(GOOD.replace("{min_seconds: 2}", "{min_seconds: 2.0, backend: pyav}"))
    assert made_by(GOOD) == made_by(GOOD.replace("{min_seconds: 2}", "{min_seconds: 3}"))
    assert made_by(GOOD) != made_by(GOOD.replace("{min_seconds: 2}", "{min_seconds: 2, truncated: keep}"))


@pytest.mark.parametrize("text", ["", "[]", "recipes: {}", "recipes: {ingest: 3}", "recipes: {ingest: {}}", "\x00"])
def test_a_file_that_is_no_pipelines_file_is_one_clear_line(tmp_path, text):
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        load_recipes(tmp_path / "nowhere.yaml", ["ingest"])
