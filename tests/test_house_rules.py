"""The rules of the house (.ci/house_rules.py) find what they are for: each is broken once here."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parent.parent / ".ci"


@pytest.fixture(scope="module")
def rules():
    sys.path.insert(0, str(CI))
    try:
        import house_rules
        import import_rules
    finally:
        sys.path.remove(str(CI))
    return house_rules, import_rules


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("import ray._private", "ray._private"),
        ("from torch import _C", "torch._C"),
        ("import ray as r\nr.util._helper()", "ray.util._helper"),
        ("from open_clip import pretrained\npretrained._PRETRAINED", "open_clip.pretrained._PRETRAINED"),
        ("def f():\n    import torch.nn.functional as F\n    F._x", "torch.nn.functional._x"),
    ],
)
def test_a_private_name_of_a_dependency_is_found(rules, code, named):
    assert [line.split(": ")[1] for line in rules[1].check_private_names("a.py", ast.parse(code))] == [
        f"{named} is a private name of a dependency"
    ]


@pytest.mark.parametrize(
    "code",
    ["import os\nos._exit(0)", "from curate.cli import _x", "import torch\ntorch.__version__", "x = 'ray._private'"],
)
def test_private_names_of_the_standard_library_and_of_our_own_are_no_business_of_this_rule(rules, code):
    assert list(rules[1].check_private_names("a.py", ast.parse(code))) == []


def test_a_circle_between_folders_is_told_once_with_its_imports_and_one_inside_a_folder_is_none(rules):
    files = {
        "curate/a/one.py": "from curate.b import two",
        "curate/b/two.py": "def f():\n    import curate.c.three",
        "curate/c/three.py": "from curate.a.one import x",
        "curate/d/four.py": "from curate.d import five",
        "curate/d/five.py": "from curate.d import four",
    }
    (found,) = rules[1].check_circles({name: ast.parse(code) for name, code in files.items()})
    assert found.startswith("circle curate/a -> curate/b -> curate/c -> curate/a: curate/a/one.py:1 imports curate.b")


def test_dependencies_point_one_way(rules):
    found = list(rules[1].check_directions("models/a.py", ast.parse("import pandas\nfrom train import x\nimport json")))
    assert found == ["models/a.py:1: models may not import pandas", "models/a.py:2: models may not import train"]


def test_a_folder_without_init_and_a_crowded_top_are_told(rules):
    files = {f"stages/file{number}.py": ast.parse("") for number in range(5)}
    files |= {"stages/__init__.py": ast.parse(""), "stages/room/file.py": ast.parse("")}
    said = list(rules[0].check_folders(files))
    assert any(line.startswith("stages/room: needs an __init__.py") for line in said)
    assert any("5 files beside __init__.py" in line for line in said)


def test_a_page_that_names_what_is_not_there_is_told(rules):
    page = "See `train/loop.py`, `train/`, [a](b.md#c), [d](../README.md) and [e](https://example.org/x)."
    files = {"docs/a.md": page, "README.md": "", "train/log.py": ""}
    said = list(rules[0].check_page("docs/a.md", page, files))
    assert said == ["docs/a.md:1: train/loop.py is not there", "docs/a.md:1: docs/b.md is not there"]
