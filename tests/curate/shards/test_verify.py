"""Verify names whatever is not as it was published, and what made it."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect
from curate.shards import verify as shard_verify
from curate.shards.check import Expected, check_shard
from curate.shards.decode_again import RecordedPsnr, decode_again
from curate.shards.inventory import shards_of, tables_with_shards
from curate.shards.verify import Findings, shard_problems
from stages.shards.contract import Contract
from stages.shards.format import index_path, read_index
from stages.shards.writer import ShardWriter
from stages.windows.window import PREPROCESSING_VERSION
from tests import shard_catalogs as made
from tests.vae_models import vae_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A sound catalog with two shards, and the clips of each as they were given to the writer."""
    folder = tmp_path_factory.mktemp("original")
    return folder, made.make(folder / "made")


@pytest.fixture
def catalog(original, tmp_path):
    """A copy of it to be damaged."""
    shutil.copytree(original[1].uri, tmp_path / "catalog")
    return Catalog.open(str(tmp_path / "catalog"))


def look(catalog, redecode=0) -> Findings:
    with connect(catalog) as sql:
        return shard_problems(catalog, sql, redecode)


def shards(catalog, table="latents"):
    with connect(catalog) as sql:
        return list(shards_of(sql, table))


def tar(catalog, number=0) -> Path:
    return Path(catalog.uri, shards(catalog)[number].path)


def one(lines, *words):
    """The one line that holds all of these words."""
    found = [line for line in lines if all(word in line for word in words)]
    assert len(found) == 1, (words, lines)
    assert "\n" not in found[0]
    return found[0]


def test_a_sound_catalog_has_nothing_to_tell_and_its_clips_decode_as_they_did(original):
    catalog = original[1]
    assert look(catalog, redecode=1) == Findings([], [])
    with connect(catalog) as sql:
        assert tables_with_shards(sql) == ["latents"]
        for shard in shards_of(sql, "latents"):
            contract = Contract.from_json(shard.contracts[0])
            vae, place = str(original[0] / "made" / "vae"), str(Path(catalog.uri, shard.path))
            [(clip, psnr)] = shard.psnr.items()
            sample = RecordedPsnr(shard.path, place, clip, psnr, made.BUCKET, contract, vae, "float32")
            [(_, found)] = decode_again(sql, [sample])
            assert found == pytest.approx(psnr, abs=1e-3)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(path of a shard of one clip, what is expected of it)."""
    folder = tmp_path_factory.mktemp("small")
    contract = Contract(
        vae="x", fingerprint="ab" * 32, preprocessing=2, fps=8, channels=2, time_stride=4, first_frame=True,
        space_stride=8, mean=(0, 0), std=(1, 1), dtype="bfloat16",
    )  # fmt: skip
    with ShardWriter(str(folder), contract, "5x16x16", None, made.EMPTY) as writer:
        writer.add(
            "a" * 32, {"mean": np.arange(16, dtype=np.uint16).reshape(2, 2, 2, 2)}, {"captions": {"caption": "x"}}
        )
        done = writer.publish()
    expected = Expected(done.hash, done.bytes, done.index_hash, "5x16x16", contract.to_json())
    path = str(folder / done.shard)
    assert check_shard(path, expected).problems == []
    return path, expected


@settings(max_examples=150)
@given(place=st.data(), bit=st.integers(0, 7), of_index=st.booleans())
def test_any_flipped_bit_is_named(small, place, bit, of_index):
    path, expected = small
    damaged = index_path(path) if of_index else path
    content = bytearray(sound := Path(damaged).read_bytes())
    begin = 0 if of_index or place.draw(st.booleans()) else 16 << 10  # as often in the clip as in the header's room
    at = place.draw(st.integers(begin, len(content) - 1))
    content[at] ^= 1 << bit
    try:
        Path(damaged).write_bytes(content)
        problems = check_shard(path, expected).problems
    finally:
        Path(damaged).write_bytes(sound)
    found = xxhash.xxh3_128_hexdigest(bytes(content))
    one(problems, f"the hash {found}", expected.index_hash if of_index else expected.hash)
    for row in read_index(path).to_pylist():
        if not of_index and row["offset"] <= at < row["offset"] + row["length"]:
            one(problems, f"the field {row['field']} of clip {'a' * 32}", f"{row['xxh3']:016x}")


def test_a_flipped_bit_in_a_catalog_is_named_with_shard_clip_and_field(catalog):
    path = tar(catalog)
    rows = read_index(str(path)).to_pylist()
    row = next(row for row in rows if row["field"] == "logvar")
    content = bytearray(path.read_bytes())
    content[row["offset"] + 5] ^= 4
    path.write_bytes(content)
    problems = look(catalog).problems
    assert len(problems) == 2 and problems[0].startswith(f"latents: the shard {shards(catalog)[0].path} has")
    one(problems, "the field logvar", row["clip_id"])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), ["latents: the shard shards/latents/5x32x32/", "is missing"]),
        (lambda path: path.write_bytes(path.read_bytes()[:-512]), ["24,064 bytes, its rows say 24,576"]),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), ["24,577 bytes, its rows say 24,576"]),
        (lambda path: path.write_bytes(path.read_bytes()[:20000]), ["ends within"]),
        (lambda path: path.write_bytes(b""), ["has 0 bytes, its rows say 24,576"]),
        (lambda path: Path(index_path(str(path))).unlink(), ["has no index", ".parquet is missing"]),
        (lambda path: Path(index_path(str(path))).write_bytes(b"PAR1"), ["has an index with the hash", "rows say"]),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_was_is_named(catalog, damage, words):
    damage(tar(catalog))
    one(look(catalog).problems, *words)


def rewrite_index(catalog, change):
    """Writes the index of the first shard anew with changed rows, and has the table say that it is right."""
    shard, path = shards(catalog)[0], index_path(str(tar(catalog)))
    table = read_index(path)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(change(table.to_pylist()), table.schema), path)
    digest = xxhash.xxh3_128_hexdigest(Path(path).read_bytes())
    catalog.table("latents").update(updates={"index_hash": f"'{digest}'"}, predicate=f"shard = '{shard.path}'")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row | {"offset": row["offset"] + 512}, ["its offset is", "in the tar", "in the index"]),
        (lambda row: row | {"length": row["length"] - 2}, ["its length is", "in the tar", "in the index"]),
        (lambda row: row | {"dtype": "int16"}, ["its dtype is float16 in the tar, int16 in the index"]),
        (lambda row: row | {"shape": row["shape"][::-1]}, ["its shape is [4, 2, 4, 4] in the tar, [4, 4, 2, 4] in"]),
        (lambda row: row | {"xxh3": row["xxh3"] ^ 1}, ["its bytes have the hash", "the index says"]),
        (lambda row: None, ["is in the tar, not in the index"]),
    ],
)  # fmt: skip
def test_an_index_that_disagrees_with_its_tar_is_named(catalog, change, words):
    def changed(rows):
        new = [change(row) if (number, row["field"]) == (first, "mean") else row for number, row in enumerate(rows)]
        return [row for row in new if row is not None]

    first = next(n for n, row in enumerate(read_index(str(tar(catalog))).to_pylist()) if row["field"] == "mean")
    rewrite_index(catalog, changed)
    one(look(catalog).problems, "the field mean of clip", *words)


def test_an_index_that_promises_more_is_named(catalog):
    rewrite_index(catalog, lambda rows: [*rows, rows[0] | {"clip_id": "f" * 32}])
    one(look(catalog).problems, f"of clip {'f' * 32} is in the index, not in the tar")


def test_stored_nan_is_named(original, catalog, monkeypatch):
    """As another writer might leave it: ours refuses it."""
    monkeypatch.setattr("stages.shards.writer.not_finite", lambda *_: False)
    contract = Contract.from_json(shards(catalog)[0].contracts[0])
    bits = Contract.from_dict(contract.to_dict() | {"dtype": "bfloat16"})
    info = {"source_id": "s" * 32, "start_s": 0.0}
    for clip, kind, values in (
        ("n" * 32, contract, np.full((4, 2, 4, 4), np.nan, np.float16)),
        ("b" * 32, bits, np.full((4, 2, 4, 4), 0xFF80, np.uint16)),  # - infinity
    ):
        parts = [(clip, {"mean": values}, info, None)]
        done = made.publish(catalog.uri, kind, parts, original[0] / "made" / "vae", decode_psnr={})
        made.commit(catalog, made.rows_of(done, kind, parts))
    problems = look(catalog).problems
    one(problems, f"mean of clip {'n' * 32} holds NaN or infinity")
    one(problems, f"mean of clip {'b' * 32} holds NaN or infinity")


def tamper(catalog, where, **values):
    catalog.table("latents").update(updates={name: f"'{value}'" for name, value in values.items()}, predicate=where)


def test_rows_that_say_something_else_than_the_header_are_named(catalog):
    shard = shards(catalog)[0]
    contract = Contract.from_json(shard.contracts[0])
    other = Contract.from_dict(contract.to_dict() | {"mean": [9.0, 0, 0, 0], "preprocessing": 7})
    tamper(catalog, f"shard = '{shard.path}'", contract=other.to_json(), bucket="9x32x32")
    problems = look(catalog).problems
    one(problems, shard.path, "contradicts its rows: mean: [0.1, 0.1, 0.1, 0.1] here, [9.0, 0.0, 0.0, 0.0] there")
    one(problems, shard.path, f"contradicts its rows: preprocessing: {PREPROCESSING_VERSION} here, 7 there")
    one(problems, shard.path, "the bucket 5x32x32, its rows say 9x32x32")
    assert len(problems) == 3


def test_rows_that_contradict_each_other_or_the_header_s_psnr_are_named(catalog):
    first, second = shards(catalog)
    tamper(catalog, f"clip_id = '{first.clips[0]}'", shard_hash="0" * 32)
    catalog.table("latents").update(updates={"decode_psnr": "decode_psnr + 1"}, predicate="decode_psnr IS NOT NULL")
    problems = look(catalog).problems
    one(problems, first.path, "rows that contradict each other", "0" * 32)
    [(clip, psnr)] = second.psnr.items()
    one(problems, second.path, f"a decode PSNR of {psnr} for clip {clip}, its row says {psnr + 1}")


def test_clips_without_rows_and_rows_without_clips_are_named(catalog):
    first, second = shards(catalog)
    lost, moved = first.clips[0], second.clips[1]
    catalog.table("latents").delete(f"clip_id = '{lost}'")
    tamper(catalog, f"clip_id = '{moved}'", shard=first.path, shard_hash=first.hashes[0],
           index_hash=first.index_hashes[0])  # fmt: skip
    problems = look(catalog).problems
    one(problems, f"the shard {first.path} holds the clip {lost}, which no row names")
    one(problems, f"the shard {first.path} does not hold what rows say it does: {moved}")
    one(problems, f"the shard {second.path} holds the clip {moved}, whose row names the shard {first.path}")
    assert len(problems) == 3


def test_a_clip_in_two_shards_and_a_row_without_one_are_named(catalog):
    first, second = shards(catalog)
    twice = {"clip_id": first.clips[0], "status": "done", "shard": second.path, "shard_hash": second.hashes[0],
             "shard_bytes": second.sizes[0], "index_hash": second.index_hashes[0], "bucket": made.BUCKET,
             "contract": second.contracts[0]}  # fmt: skip
    made.commit(catalog, [twice, {"clip_id": "e" * 32, "status": "done"}])
    problems = look(catalog).problems
    one(problems, f"the clip {first.clips[0]} is in two shards", first.path, second.path)
    one(problems, "a row is done without a shard", "e" * 32)


def test_what_was_made_again_since_is_no_mismatch(original, catalog):
    """A clip that was encoded again is in the old shard too, and a source that is gone leaves its clips there."""
    first, second = shards(catalog)
    contract = Contract.from_json(first.contracts[0])
    parts = [(first.clips[0], {"mean": np.ones((4, 2, 4, 4), np.float16)}, {"source_id": "s", "start_s": 0.0}, None)]
    done = made.publish(catalog.uri, contract, parts, original[0] / "made" / "vae", decode_psnr={})
    made.commit(catalog, made.rows_of(done, contract, parts), replace=True)
    gone = second.clips[0]
    with connect(catalog) as sql:
        ((source,),) = sql.execute("SELECT source_id FROM raw.clips WHERE clip_id = $1", [gone]).fetchall()
    for table, key, value in (("latents", "clip_id", gone), ("sources", "source_id", source)):
        with Ledger(catalog, table, key, uuid.uuid4().hex) as ledger:
            ledger.forget([value])
    found = look(catalog)
    # The first shard's header still has the PSNR of a clip that no row names there any more, which is no mismatch.
    assert found.problems == []
    one(found.notes, f"the shard {first.path} still holds", first.clips[0])
    one(found.notes, f"the shard {second.path} still holds", second.clips[0])


def remade(original, catalog, tmp_path, dtype="float16", **header):
    """The first shard published anew with another header, its VAE one that may be changed."""
    if not (tmp_path / "vae").exists():
        shutil.copytree(original[0] / "made" / "vae", tmp_path / "vae")
    sources, clips = [], []
    with connect(catalog) as sql:
        for name, rows in (("sources", sources), ("clips", clips)):
            found = sql.execute(f"SELECT * EXCLUDE (pass) FROM raw.{name} ORDER BY ALL")
            names = [column[0] for column in found.description]
            rows += [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    contract, parts = made.encoded(clips[:2], sources, tmp_path / "vae", dtype)
    recorded = {"decode_psnr": {parts[0][0]: parts[0][3] + header.pop("more", 0)}}
    parts[0] = (*parts[0][:3], recorded["decode_psnr"][parts[0][0]])
    done = made.publish(catalog.uri, contract, parts, tmp_path / "vae", **recorded, **header)
    made.commit(catalog, made.rows_of(done, contract, parts), replace=True)
    return tmp_path / "vae", contract, f"shards/latents/{done.shard}"


def test_a_psnr_that_can_not_be_had_again_is_named(original, catalog, tmp_path):
    _, _, path = remade(original, catalog, tmp_path, more=0.5)
    line = one(look(catalog, redecode=1).problems, "dB was recorded")
    assert path in line and "decodes to" in line and "of its source now" in line
    assert look(catalog, redecode=0).problems == []


@pytest.mark.parametrize("kind", ["bfloat16", "tokens"])
def test_bfloat16_and_tokens_are_decoded_again_too(original, catalog, tmp_path, kind):
    if kind == "tokens":
        vae_folder(tmp_path / "vae", scaling=False, quantizer="fsq", quantizer_options={"levels": (4, 4, 4, 4)})
    _, contract, _ = remade(original, catalog, tmp_path, "bfloat16", more=0.05)
    assert contract.dtype == ("int32" if kind == "tokens" else kind)
    assert look(catalog, redecode=1) == Findings([], [])
    shutil.rmtree(tmp_path / "vae")
    one(look(catalog, redecode=1).notes, "not re-decoded")


def test_another_vae_at_the_recorded_path_is_named(original, catalog, tmp_path):
    vae, contract, path = remade(original, catalog, tmp_path)
    assert look(catalog, redecode=1).problems == []
    shutil.rmtree(vae)
    vae_folder(vae, seed=1)
    found = look(catalog, redecode=1)
    line = one(found.problems, f"the VAE at {vae} has the fingerprint", f"{contract.fingerprint} in the contract")
    assert path in line and len(found.problems) == 1
    one(found.notes, "not re-decoded", "their VAE is not at hand")


def test_one_changed_bit_of_a_vae_s_weights_is_named(original, catalog, tmp_path):
    vae, _, path = remade(original, catalog, tmp_path)
    content = bytearray((vae / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (vae / "model.safetensors").write_bytes(content)
    one(look(catalog).problems, f"the VAE at {vae}", path)


def test_another_scaling_of_the_vae_is_named(original, catalog, tmp_path):
    vae, _, path = remade(original, catalog, tmp_path)
    config = vae / "config.json"
    config.write_text(config.read_text().replace("0.9", "0.8"))
    one(
        look(catalog).problems, str(vae), "another scaling: std [0.8, 0.8, 0.8, 0.8] now, [0.9, 0.9, 0.9, 0.9] in", path
    )


def test_another_preprocessing_than_this_clipmill_s_is_named(catalog, monkeypatch):
    monkeypatch.setattr(shard_verify, "PREPROCESSING_VERSION", 99)
    made_by = f"preprocessing version {PREPROCESSING_VERSION} made 2 shards"
    line = one(look(catalog).problems, made_by, "this clipmill's is 99")
    assert shards(catalog)[0].path in line


def test_what_is_not_at_hand_is_a_note_and_no_mismatch(original, catalog, tmp_path):
    vae, _, _ = remade(original, catalog, tmp_path)
    shutil.rmtree(vae)
    films = [row.rename(row.with_suffix(".gone")) for row in (original[0] / "made").glob("*.mp4")]
    try:
        found = look(catalog, redecode=1)
    finally:
        for film in films:
            film.rename(film.with_suffix(".mp4"))
    assert found.problems == []
    one(found.notes, f"the VAE at {vae} is not there: not compared with 1 shard")
    one(found.notes, "not re-decoded", "their VAE is not at hand")
    one(found.notes, "not re-decoded", "film1.mp4 is not at hand")


def test_of_many_shards_some_clips_are_decoded_again_and_a_note_says_so(original, monkeypatch):
    monkeypatch.setattr(shard_verify, "DECODED", 1)
    asked = []
    again = shard_verify.decode_again
    monkeypatch.setattr(shard_verify, "decode_again", lambda sql, samples: again(sql, asked.extend(samples) or samples))
    found = look(original[1], redecode=1)
    assert found.problems == [] and len(asked) == 1
    one(found.notes, "1 of 2 sampled clips were decoded again")


def test_a_clip_whose_json_says_nothing_of_its_source_is_not_decoded(original, catalog):
    contract = Contract.from_json(shards(catalog)[0].contracts[0])
    parts = [("j" * 32, {"mean": np.zeros((4, 2, 4, 4), np.float16)}, {"source_id": "s", "start_s": 0.0}, 9.0)]
    done = made.publish(catalog.uri, contract, parts, original[0] / "made" / "vae")
    made.commit(catalog, made.rows_of(done, contract, parts))
    found = look(catalog, redecode=1)
    assert found.problems == []
    one(found.notes, "not re-decoded", "j" * 32, "its JSON does not say")
