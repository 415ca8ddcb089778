"""Path patterns of RFC 9309."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.run.opt_outs.patterns import matches, path_of


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/", "/a/b.mp4", True),
        ("/a/", "/a/b.mp4", True),
        ("/a", "/ab", True),
        ("/a/", "/b/a/", False),
        ("/*.mp4$", "/a/b.mp4", True),
        ("/*.mp4$", "/a/b.mp4?x=1", False),
        ("/a$", "/a", True),
        ("/a$", "/ab", False),
        ("*secret*", "/x/secret/y", True),
        ("/a*b*c$", "/aXbXc", True),
        ("/ab*b$", "/ab", False),
        ("/é", "/%C3%A9tude", True),
        ("", "/anything", True),
    ],
)
def test_patterns_match_as_robots_txt_says(pattern, path, expected):
    assert matches(pattern, path) is expected


LETTERS = st.text(alphabet="ab/*", max_size=8)


@given(LETTERS, st.booleans(), st.text(alphabet="ab/", max_size=12))
def test_patterns_match_what_their_regular_expression_matches(pattern, ends, path):
    expression = ".*".join(map(re.escape, pattern.split("*"))) + ("$" if ends else "")
    assert matches(pattern + "$" * ends, path) is (re.match(expression, path) is not None)


def test_a_pattern_of_many_stars_takes_no_time():
    began = time.process_time()
    assert not matches("/" + "*a" * 5000 + "$", "/" + "a" * 4999 + "b")
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://example.com", "/"),
        ("https://example.com/a b?q=é#part", "/a b?q=%C3%A9"),
        ("http://u:p@example.com:8080/x/%C3%A9", "/x/%C3%A9"),
    ],
)
def test_paths_of_urls(url, path):
    assert path_of(url) == path
