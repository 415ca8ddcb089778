"""URIs of members: a prefix stays a prefix, and what was put together is taken apart again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.decode.archives.uri import file_uri, local_path, member_uri, spelled, split

ARCHIVES = ("/d/00000.tar", "s3://b/x y/%20.zip", "http://h/a.PARQUET", "file:///d/%FF.tar", "rel/#1/a.tar")


@given(archive=st.sampled_from(ARCHIVES), name=st.text(min_size=1))
def test_a_member_s_uri_splits_into_its_archive_and_its_name(archive, name):
    assert split(member_uri(archive, name)) == (archive, name)
    assert file_uri(member_uri(archive, name)) == archive


@pytest.mark.parametrize(
    "uri", ["/d/a.mp4", "/d/a#b.mp4", "/d/a.tar", "/d/a.tar#", "/d/atar#b", "s3://b/take#1.mp4", "#"]
)
def test_a_file_of_its_own_does_not_split(uri):
    assert split(uri) is None and file_uri(uri) == uri


def test_the_archive_of_a_file_uri_is_a_quoted_path_and_its_members_are_not_quoted():
    archive, name = split("file:///d/a%20b.tar#c%20d.mp4")
    assert local_path(archive) == "/d/a b.tar" and name == "c%20d.mp4"


def test_bytes_of_a_name_that_are_no_utf_8_are_percent_encoded():
    assert spelled(b"caf\xe9.mp4".decode("utf-8", "surrogateescape")) == "caf%E9.mp4"
    assert spelled("café 🎬.mp4") == "café 🎬.mp4"
