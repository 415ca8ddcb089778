"""A shard written anew without some clips: the others keep every byte, and it is a shard like any other."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.shards.check import Expected, check_shard
from stages.shards.format import index_path, read_empty, read_header, read_index, read_sample
from stages.shards.rewrite import infos, without_clips
from tests.curate.loader.latents import clip_ids, contract, write_shard

BUCKET = "5x16x24"
CLIPS = clip_ids({BUCKET: 6})[BUCKET]


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewrite")
    (path,) = {row["shard"] for row in write_shard(str(folder), BUCKET, CLIPS, contract())}
    return folder / path


def samples(path):
    rows = read_index(str(path)).to_pylist()
    return {
        clip: read_sample(str(path), [r for r in rows if r["clip_id"] == clip]) for clip in {r["clip_id"] for r in rows}
    }


@settings(max_examples=12)
@given(gone=st.sets(st.sampled_from(CLIPS)))
def test_the_other_samples_keep_their_bytes_and_the_contract_stays(shard, tmp_path_factory, gone):
    folder = tmp_path_factory.mktemp("anew")
    made = without_clips(str(shard), str(folder), gone)
    if len(gone) == len(CLIPS):
        assert made is None
        assert list(folder.rglob("*.tar")) == []
        return
    path = folder / made.shard
    header = read_header(str(path))
    said = Expected(made.hash, made.bytes, made.index_hash, BUCKET, json.dumps(header["contract"]))
    assert check_shard(str(path), said).problems == []
    assert header == read_header(str(shard))
    assert {n: v.tobytes() for n, v in read_empty(str(path)).items()} == {
        n: v.tobytes() for n, v in read_empty(str(shard)).items()
    }
    before, after = samples(shard), samples(path)
    assert set(after) == set(CLIPS) - gone
    for clip, fields in after.items():
        assert {n: v if n == "json" else v.tobytes() for n, v in fields.items()} == {
            n: v if n == "json" else v.tobytes() for n, v in before[clip].items()
        }
    content = path.read_bytes() + (folder / index_path(made.shard)).read_bytes()
    assert not any(clip.encode() in content for clip in gone)
    if not gone:
        assert path.read_bytes() == shard.read_bytes()


def test_what_a_sample_says_of_itself_is_read_without_the_rest(shard):
    found = infos(str(shard), CLIPS[:2])
    assert set(found) == set(CLIPS[:2])
    assert all(info["clip_id"] == clip for clip, info in found.items())
