"""The settings file of the documents: what it takes, and one line for what is wrong in it."""

import re
from pathlib import Path

import pytest

from curate.audit.documents.settings import DocumentSettings, read_settings
from curate.errors import UserError
from tests.curate.audit.made import Made
from tests.curate.running import clipmill

DOCS = Path(__file__).parents[4] / "docs" / "audit.md"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("provider: {nam: x}", 1, "unknown key 'provider.nam'; did you mean 'name'?"),
        ("\ndatset: {}", 2, "unknown key 'datset'; did you mean 'dataset'?"),
        ("datasheet:\n  purpose: x\n  purpse: y", 3, "unknown key 'datasheet.purpse'; did you mean 'purpose'?"),
        ("dataset: {version: 1.0}", 1, "dataset.version: input should be a valid string, got '1.0'; put it in quotes"),
        ("dataset: {published: soon}", 1, "dataset.published: input should be a valid date"),
        ("dataset: {licence: CC-BY-4.0}", 1, "dataset.licence: expected a URL such as"),
        ("eu_summary:\n  latest_acquisition: 13/2026", 2, "expected a month such as 01/2026"),
        ("eu_summary: {text_size: big}", 1, "'under 1 bn tokens'"),
        ("eu_summary: {code_of_practice: perhaps}", 1, "valid boolean"),
        ("provider: {name: ''}", 1, "at least 1 character"),
        ("provider: {name: a}\nprovider: {name: b}", 2, "given twice"),
        ("- a", 1, "there is provider, dataset, eu_summary, datasheet"),
        ("provider: [", 1, "not valid YAML"),
        ("provider: x", 1, "provider: "),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, text, line, said):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_settings(str(file))
    message = str(error.value)
    assert message.startswith(f"{file}:{line}: ")
    assert said in message
    assert len(message.splitlines()) == 1


def test_a_wrong_settings_file_is_refused_before_anything_is_written(tmp_path):
    catalog = Made().write(tmp_path / "catalog")
    (tmp_path / "settings.yaml").write_text("provider: {nam: x}")
    for settings, said in ((tmp_path / "settings.yaml", "unknown key 'provider.nam'"), (tmp_path / "no", "can't read")):
        done = clipmill("audit", "--catalog", catalog, "-o", tmp_path / "out", "--settings", settings)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
        assert said in done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "provider:\n", "datasheet: {}\n", "# nothing\n"])
def test_an_empty_file_and_empty_parts_say_nothing(tmp_path, text):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert read_settings(str(file)) == DocumentSettings() == read_settings(None)


def test_every_key_is_in_the_docs():
    section = DOCS.read_text().split("### The settings file")[1]
    named = set(re.findall(r"`([a-z_]+):?`", section))
    for name in DocumentSettings.model_fields:
        assert name in named
        missing = set(type(getattr(DocumentSettings(), name)).model_fields) - named
        assert not missing, (name, missing)
