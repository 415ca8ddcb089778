"""Shards: any tool reads them, the same clips give the same bytes, and nothing half-written is ever seen."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.shards.contract import Contract
from stages.shards.format import ShardError, read_empty, read_header, read_index, read_sample
from stages.shards.writer import HEADER_ROOM, ShardWriter, _tar_header

BUCKET = "5x16x16"
CONTRACT = Contract(
    vae="clipmill causal VAE", fingerprint="ab" * 32, preprocessing=1, fps=8, channels=4, time_stride=4,
    first_frame=True, space_stride=8, mean=(0, 0, 0, 0), std=(1, 1, 1, 1), dtype="float16",
)  # fmt: skip
BITS = Contract.from_dict(CONTRACT.to_dict() | {"dtype": "bfloat16"})
TOKENS = Contract.from_dict(CONTRACT.to_dict() | {"dtype": "int32", "codebook": 16, "mean": [], "std": []})
SHAPE = (4, 2, 2, 2)
EMPTY = {"text": np.full((2, 6), 0.25, np.float16)}


def clip(number):
    """(id, fields, info) of a made-up clip."""
    draw = np.random.default_rng(number)
    length = int(draw.integers(1, 4))
    fields = {
        "mean": draw.normal(size=SHAPE).astype(np.float16),
        "logvar": draw.normal(size=SHAPE).astype(np.float16),
        "text": draw.normal(size=(length, 6)).astype(np.float16),
        "text_mask": np.ones(length, np.uint8),
    }
    return (
        f"{number:032x}",
        fields,
        {"captions": {"caption": f"clip {number} — ünïcode"}, "conditions": {"motion": None}},
    )


def write(folder, numbers=range(3), contract=CONTRACT, **header):
    with ShardWriter(str(folder), contract, BUCKET, header, EMPTY) as writer:
        for number in numbers:
            writer.add(*clip(number))
        return writer.publish()


def files(folder):
    return sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return str(folder / write(folder, vae_path="vae", decode_psnr={f"{0:032x}": 30.5}).shard)


def test_all_who_may_read_by_the_umask_can_read_a_shard_and_its_index(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "shards")
    finally:
        os.umask(before)
    assert [os.stat(path).st_mode & 0o777 for path in files(tmp_path)] == [0o640, 0o640]


def test_plain_webdataset_reads_the_samples_and_nothing_else(shard):
    import webdataset

    samples = list(webdataset.WebDataset(shard, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [clip(number)[0] for number in range(3)]
    for number, sample in enumerate(samples):
        _, fields, info = clip(number)
        assert {key for key in sample if not key.startswith("__")} == {*(f"{name}.npy" for name in fields), "json"}
        assert all(np.array_equal(sample[f"{name}.npy"], values) for name, values in fields.items())
        assert sample["json"] == info | {"clip_id": sample["__key__"]}


def test_plain_tarfile_and_numpy_read_everything(shard):
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        assert names[:2] == ["__contract__/contract.json", "__contract__/empty_text.npy"]
        assert json.load(tar.extractfile(names[0]))["contract"] == CONTRACT.to_dict()
        for name in names[1:]:
            if name.endswith(".npy"):
                np.load(io.BytesIO(tar.extractfile(name).read()), allow_pickle=False)
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in tar} == {(0, 0, 0, "")}


@given(st.text("abc-._/", min_size=1, max_size=100), st.integers(0, 8 * 2**30 - 1))
def test_tar_headers_are_those_of_tarfile(name, length):
    info = tarfile.TarInfo(name)
    info.size = length
    assert _tar_header(name, length) == info.tobuf(tarfile.USTAR_FORMAT)


def test_header_empty_prompt_and_samples_come_back(shard):
    header = read_header(shard)
    assert Contract.from_dict(header["contract"]) == CONTRACT and header["digest"] == CONTRACT.digest
    assert header["bucket"] == BUCKET and header["vae_path"] == "vae" and header["decode_psnr"] == {f"{0:032x}": 30.5}
    assert np.array_equal(read_empty(shard)["text"], EMPTY["text"])
    index = read_index(shard)
    for number in range(3):
        key, fields, info = clip(number)
        sample = read_sample(shard, index.filter(pc.equal(index["clip_id"], key)))
        assert sample.pop("json") == info | {"clip_id": key}
        assert set(sample) == set(fields) and all(np.array_equal(sample[name], fields[name]) for name in fields)


KINDS = st.sampled_from(["float16", "float32", "uint8", "int32", "int64", "bool"])
ARRAYS = hnp.arrays(
    KINDS,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    elements={"allow_nan": False, "allow_infinity": False},
)


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True).filter(
            lambda n: n not in ("json", "mean", "logvar", "tokens")
        ),
        ARRAYS,
        max_size=3,
    )
)
def test_the_index_gives_the_place_and_hash_of_any_array(tmp_path_factory, extra):
    folder = tmp_path_factory.mktemp("shards")
    key, fields, info = clip(0)
    with ShardWriter(str(folder), CONTRACT, BUCKET) as writer:
        writer.add(key, fields | extra, info)
        path = str(folder / writer.publish().shard)
    content = Path(path).read_bytes()
    rows = {row["field"]: row for row in read_index(path).to_pylist()}
    assert set(rows) == {*fields, *extra, "json"}
    for name, values in (fields | extra).items():
        row = rows[name]
        data = content[row["offset"] : row["offset"] + row["length"]]
        assert data == values.tobytes() and row["xxh3"] == xxhash.xxh3_64_intdigest(data)
        assert (row["dtype"], row["shape"]) == (values.dtype.name, list(values.shape))
        assert row["offset"] % 64 == 0
    row = rows["json"]
    assert json.loads(content[row["offset"] : row["offset"] + row["length"]])["clip_id"] == key


def test_the_same_clips_give_the_same_bytes(tmp_path):
    made = []
    for name in "ab":
        with ShardWriter(str(tmp_path / name), CONTRACT, BUCKET, {"x": 1, "y": 2}, EMPTY) as writer:
            for number in range(3):
                key, fields, info = clip(number)
                order = (lambda d: dict(reversed(d.items()))) if name == "b" else dict
                # Also from arrays that do not lie in memory as they are stored.
                writer.add(
                    key, {field: np.asfortranarray(values) for field, values in order(fields).items()}, order(info)
                )
            made.append(writer.publish())
    assert made[0] == made[1]
    contents = [[Path(path).read_bytes() for path in files(tmp_path / name)] for name in "ab"]
    assert contents[0] == contents[1] and len(contents[0]) == 2
    assert xxhash.xxh3_128_hexdigest(contents[0][1]) == made[0].hash and len(contents[0][1]) == made[0].bytes
    assert xxhash.xxh3_128_hexdigest(contents[0][0]) == made[0].index_hash


def test_other_content_never_has_the_same_name(tmp_path):
    _, fields, info = clip(0)
    other = Contract.from_dict(CONTRACT.to_dict() | {"fps": 9})
    made = {write(tmp_path).shard, write(tmp_path, range(2)).shard, write(tmp_path, contract=other).shard}
    made |= {write(tmp_path, decode_psnr={"a": 1.0}).shard}
    for changed in ({"text": fields["text"] + 1}, {}):
        with ShardWriter(str(tmp_path), CONTRACT, BUCKET, None, EMPTY) as writer:
            writer.add(clip(0)[0], fields | changed, info | ({} if changed else {"uri": "b"}))
            made.add(writer.publish().shard)
    assert len(made) == 6


def test_the_header_may_be_told_last_and_be_of_any_length(tmp_path):
    plain = write(tmp_path / "plain")
    with ShardWriter(str(tmp_path / "long"), CONTRACT, BUCKET, None, EMPTY) as writer:
        for number in range(3):
            writer.add(*clip(number))
        writer.header["decode_psnr"] = {f"{number:032x}": number / 7 for number in range(3000)}
        path = str(tmp_path / "long" / writer.publish().shard)
    assert os.path.getsize(path) > plain.bytes + HEADER_ROOM
    assert len(read_header(path)["decode_psnr"]) == 3000
    assert np.array_equal(read_empty(path)["text"], EMPTY["text"])
    index = read_index(path).to_pylist()
    assert (
        read_sample(path, [row for row in index if row["clip_id"] == clip(2)[0]])["mean"].tolist()
        == clip(2)[1]["mean"].tolist()
    )
    with tarfile.open(path) as tar:
        assert len(tar.getnames()) == 2 + 3 * 5
    assert len(files(tmp_path / "long")) == 2


def test_bfloat16_is_kept_bit_by_bit_and_tokens_as_integers(tmp_path):
    bits = np.arange(32, dtype="<u2").reshape(SHAPE) + 0x3F00
    with ShardWriter(str(tmp_path), BITS, BUCKET) as writer:
        writer.add("a", clip(0)[1] | {"mean": bits, "logvar": bits}, {})
        path = str(tmp_path / writer.publish().shard)
    assert np.array_equal(read_sample(path, read_index(path))["mean"], bits)
    with ShardWriter(str(tmp_path), TOKENS, BUCKET) as writer:
        writer.add("a", {"tokens": np.full(SHAPE[1:], 15, np.int32)}, {})
        path = str(tmp_path / writer.publish().shard)
    assert read_sample(path, read_index(path))["tokens"].tolist() == np.full(SHAPE[1:], 15).tolist()


def changed(contract=CONTRACT, key="x", info=None, drop=(), **fields):
    return contract, key, {n: v for n, v in (clip(0)[1] | fields).items() if n not in drop}, info or {}


NAN, INF = np.full(SHAPE, np.nan, np.float16), np.full(SHAPE, np.inf, np.float16)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (changed(mean=NAN), "x: mean holds NaN"),
        (changed(logvar=-INF), "x: logvar holds NaN or infinity"),
        (changed(text=np.array([[np.nan]], np.float32)), "text holds NaN"),
        (changed(BITS, drop=("logvar",), mean=np.full(SHAPE, 0x7FC0, np.uint16)), "mean holds NaN"),
        (changed(BITS), "is float16, not uint16"),
        (changed(mean=np.zeros(SHAPE, np.float32)), "mean is float32, not float16"),
        (changed(mean=np.zeros(SHAPE[1:], np.float16)), r"shape \(2, 2, 2\), not \(4, 2, 2, 2\)"),
        (changed(drop=("mean",)), "has no mean"),
        (changed(TOKENS, drop=("mean", "logvar")), "has no tokens"),
        (changed(TOKENS, drop=("mean", "logvar"), tokens=np.full(SHAPE[1:], 16, np.int32)), "codebook has 16"),
        (changed(key="a.b"), "a.b"),
        (changed(key="../up"), "up"),
        (changed(key=f"{1:032x}"), "already"),
        (changed(**{"a/b": np.zeros(1, np.uint8)}), "a/b"),
        (changed(words=np.array(["a"])), "words is <U1"),
        (changed(info={"x": float("nan")}), "JSON"),
        (changed(info={"x": object()}), "JSON"),
    ],
)  # fmt: skip
def test_a_clip_that_contradicts_the_contract_is_refused_and_costs_itself_alone(tmp_path, bad, said):
    contract, key, fields, info = bad
    _, good, _ = clip(1)
    if contract is not CONTRACT:
        good = {"mean": np.zeros(SHAPE, np.uint16)} if contract is BITS else {"tokens": np.zeros(SHAPE[1:], np.int32)}
    made = []
    for attempt in ("with", "without"):
        with ShardWriter(str(tmp_path / attempt), contract, BUCKET) as writer:
            writer.add(f"{1:032x}", good, {})
            if attempt == "with":
                with pytest.raises(ShardError, match=said):
                    writer.add(key, fields, info)
            made.append(writer.publish())
    assert made[0] == made[1]


def test_nothing_is_seen_before_publish_and_nothing_left_without_it(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(str(tmp_path), CONTRACT, BUCKET) as writer:
        writer.add(*clip(0))
        assert all(os.path.basename(path).startswith(".") for path in files(tmp_path))
        raise RuntimeError
    assert files(tmp_path) == []
    with pytest.raises(ValueError, match="discarded"):
        writer.add(*clip(1))


def test_a_shard_without_a_clip_is_refused(tmp_path):
    with pytest.raises(ShardError, match="one clip"), ShardWriter(str(tmp_path), CONTRACT, BUCKET) as writer:
        writer.publish()
    assert files(tmp_path) == []
