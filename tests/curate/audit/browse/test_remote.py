"""A catalog on an S3 server is shown like a local one, and DuckDB has no store to ask."""

from __future__ import annotations

import shutil

import pytest
import s3fs

from tests.curate.audit.browse.serving import serving
from tests.curate.running import ask


@pytest.mark.parametrize("text", [
    "SELECT * FROM read_parquet('{bucket}/catalog/clips/*.parquet')",
    "SELECT * FROM '{bucket}/secret.csv'",
    "COPY clips TO '{bucket}/new.parquet'",
    "ATTACH '{bucket}/secret.csv'",
])  # fmt: skip
def test_a_bucket_is_read_as_tables_and_in_no_other_way(remote, text):
    served, place, _ = remote
    store = s3fs.S3FileSystem()
    before = sorted(store.find(place))
    assert "secret-of-the-bucket" not in served.refused("rows", text=text.replace("{bucket}", place))
    store.invalidate_cache()
    assert sorted(store.find(place)) == before


def test_clips_thumbnails_and_rows_of_a_bucket_are_those_of_the_folder_it_was_copied_from(remote):
    served, _, local = remote
    order = {"order": "clip_id"}
    wanted = ask(local, "SELECT clip_id, verdict FROM clips ORDER BY clip_id")
    clips = served.pages(order)
    assert [(clip["clip_id"], clip["verdict"]) for clip in clips] == wanted
    pictures = dict(ask(local, "SELECT clip_id, jpeg FROM thumbnails"))
    assert all(served.get(f"thumbnail/{clip['place']}").body == pictures[clip["clip_id"]] for clip in clips)
    query = "SELECT status, count(*), max(committed_at)::VARCHAR FROM sources GROUP BY 1"
    assert [tuple(row) for row in served.ask("rows", text=query)["rows"]] == ask(local, query)
    assert served.get(f"span/{clips[0]['clip_id']}.mp4").status == 200
    said = dict(ask(local, "SELECT clip_id, caption_short FROM captions"))
    (shown,) = [
        each for each in served.ask("clip", clip_id=clips[0]["clip_id"])["captions"] if each["name"] == "caption_short"
    ]
    assert shown["text"] == said[clips[0]["clip_id"]]


@pytest.mark.parametrize("query", [
    "SELECT clip_id, caption_short, duplicate_of, duplicate_keep FROM clips ORDER BY 1",
    "SELECT clip_id, caption_short FROM captions WHERE clip_id >= '0' ORDER BY 1",
    "SELECT source_id, uri FROM sources WHERE uri LIKE '%film_1%' OR source_id < '8' ORDER BY 1",
])  # fmt: skip
def test_conditions_on_texts_find_the_same_rows_in_a_bucket(remote, query):
    served, _, local = remote
    assert [tuple(row) for row in served.ask("rows", text=query)["rows"]] == ask(local, query)


@pytest.fixture(scope="module")
def remote(browsed, s3_server, tmp_path_factory):
    """(server, bucket, the local catalog that was copied into it)."""
    import uuid

    store = s3fs.S3FileSystem()
    place = f"s3://browse-{uuid.uuid4().hex[:12]}"
    store.mkdir(place)
    local = tmp_path_factory.mktemp("remote") / "catalog"
    shutil.copytree(browsed / "catalog", local)
    store.put(str(local), f"{place}/catalog", recursive=True)
    store.pipe_file(f"{place}/secret.csv", b"name\nsecret-of-the-bucket\n")
    with serving(f"{place}/catalog") as served:
        yield served, place, local
