"""Prompts fill in what is known of a clip, and nothing else can be reached through them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.captions import prompts
from stages.captions.prompts import FieldError, check_template, fields, fill
from stages.captions.settings import CaptionSettings
from stages.unit import Clip, Source
from tests.stages.captions.made import clip_row

NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
PLAIN = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(PLAIN, NAMES, st.text(min_size=1, max_size=20))))
def test_what_is_filled_in_is_taken_as_it_is(parts):
    values = {name: value for _, name, value in parts}
    template = "".join(f"{plain}{{{name}}}" for plain, name, _ in parts)
    assert check_template(template) == set(values)
    assert fill(template, values) == "".join(plain + values[name] for plain, name, _ in parts)


@pytest.mark.parametrize(
    "template", ["{clip.__class__}", "{clip[0]}", "{0}", "{}", "{clip!r}", "{clip:{width}}", "{clip", "clip}"]
)
def test_only_plain_fields_are_let_in(template):
    with pytest.raises(ValueError, match=r"field|brace|'}'"):
        check_template(template)
    with pytest.raises(ValueError, match="prompt 'long'"):
        CaptionSettings(prompts={"long": template, "short": "x"}, manifest={"column": {"short": "a"}})


def test_a_clip_is_described_by_its_columns_and_its_manifest():
    manifest = {"caption": "a dog", "width": 1, "licence": "cc0"}
    values = fields(Clip(clip_row(1), Source("s" * 32, "films/a.mp4", manifest)))
    said = fill("{duration} s of {width}x{height}, {fps:.2f} fps, {{braces}}: {caption} ({licence})", values)
    assert said == "2.5 s of 640x360, 24.00 fps, {braces}: a dog (cc0)"


def test_a_field_without_a_value_says_whether_the_column_is_there():
    for values, known in (({}, False), ({"caption": None}, True), ({"caption": ""}, True)):
        with pytest.raises(FieldError) as caught:
            fill("{caption}", values)
        assert caught.value.known is known


def test_a_value_can_not_flood_a_prompt():
    assert len(fill("{caption}", {"caption": "word " * 10_000})) == prompts.MAX_FILLED


def test_a_specification_that_does_not_fit_is_one_line():
    with pytest.raises(ValueError, match="does not fit 'wide'"):
        fill("{width:.1f}", {"width": "wide"})
