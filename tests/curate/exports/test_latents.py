"""Latents as Parquet: any tool reads them, number for number; a file is whole or absent."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet
import pytest

from curate.catalog.catalog import Catalog
from curate.errors import UserError
from curate.exports import latents as shard_export
from curate.exports.folder import MARKER
from curate.exports.latents import export_parquet, run_export
from stages.shards.contract import Contract
from stages.windows.window import PREPROCESSING_VERSION
from tests import shard_catalogs as made

CONTRACT = Contract(
    vae="x", fingerprint="ab" * 32, preprocessing=PREPROCESSING_VERSION, fps=8, channels=4, time_stride=4,
    first_frame=True, space_stride=8, mean=(0,) * 4, std=(1,) * 4, dtype="float16",
)  # fmt: skip
BITS = Contract.from_dict(CONTRACT.to_dict() | {"dtype": "bfloat16"})
SOME = "SELECT clip_id, 1 AS n FROM latents WHERE clip_id < '00000000000000000000000000000002' ;"
TOKENS = Contract.from_dict(CONTRACT.to_dict() | {"dtype": "int32", "codebook": 99, "mean": [], "std": []})


def clip(number, contract):
    draw = np.random.default_rng(number)
    text = {"text": draw.normal(size=(number % 3, 6)).astype(np.float16), "text_mask": np.ones(number % 3, np.uint8)}
    info = {"source_id": "s" * 32, "start_s": 0.5, "captions": {"caption": f"clip „{number}“"}}
    if contract is TOKENS:
        return f"{number:032x}", {"tokens": draw.integers(0, 99, (2, 4, 4)).astype(np.int32)} | text, info, None
    kind = np.uint16 if contract is BITS else np.float16
    mean = draw.integers(0, 0x7F00, (4, 2, 4, 4)).astype(kind)
    # Every second clip has a caption and a logvar more than its neighbours.
    more = {"logvar": -mean if kind is np.float16 else mean, "text_long": mean[0, 0]} if number % 2 else {}
    return f"{number:032x}", {"mean": mean} | text | more, info, None


def floats(values, contract, name):
    return (values.astype("<u4") << 16).view("f4") if contract is BITS and name in ("mean", "logvar") else values


def catalog_of(folder, contract, shards=(range(5), range(5, 8))):
    catalog = Catalog.open_or_create(str(folder / "catalog"))
    clips = {}
    for numbers in shards:
        parts = [clip(number, contract) for number in numbers]
        clips |= {key: (fields, info) for key, fields, info, _ in parts}
        done = made.publish(catalog.uri, contract, parts, "", decode_psnr={})
        made.commit(catalog, made.rows_of(done, contract, parts))
    return catalog, clips


@pytest.mark.parametrize("contract", [CONTRACT, BITS, TOKENS], ids=lambda contract: contract.dtype)
def test_plain_pyarrow_and_duckdb_read_what_was_stored(tmp_path, monkeypatch, contract):
    monkeypatch.setattr(shard_export, "PART_BYTES", 600)  # two clips a row group
    catalog, clips = catalog_of(tmp_path, contract)
    assert export_parquet(catalog, str(tmp_path / "out")) == (8, 2, [])
    files = sorted((tmp_path / "out" / made.BUCKET).iterdir())
    assert len(files) == 2 and {file.suffix for file in files} == {".parquet"}
    seen = {}
    for file in files:
        table = pyarrow.parquet.read_table(file)
        about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        assert Contract.from_json(about["contract"]) == contract and about["bucket"] == made.BUCKET
        assert Path(about["shard"]).stem == file.stem
        seen |= {row["clip_id"]: row for row in table.to_pylist()}
    assert set(seen) == set(clips)
    for key, (fields, info) in clips.items():
        row = seen[key]
        assert json.loads(row.pop("json")) == info | {"clip_id": row.pop("clip_id")}
        stored = {name for name, values in row.items() if values is not None}
        assert stored == {*fields, *(f"{name}_shape" for name in fields)}
        for name, values in fields.items():
            found = np.array(row[name], floats(values, contract, name).dtype).reshape(row[f"{name}_shape"])
            assert np.array_equal(found, floats(values, contract, name))
    name = "tokens" if contract is TOKENS else "mean"
    sql = f"SELECT clip_id, {name}, {name}_shape FROM '{tmp_path}/out/*/*.parquet' ORDER BY clip_id"
    for key, numbers, shape in duckdb.sql(sql).fetchall():
        values = clips[key][0][name]
        assert np.array_equal(np.array(numbers).reshape(shape), floats(values, contract, name).astype(float))


def test_a_selection_takes_its_clips_alone(tmp_path, capsys):
    catalog, clips = catalog_of(tmp_path, CONTRACT)
    assert run_export(catalog.uri, str(tmp_path / "out"), SOME) == 0
    assert "2 clips in 1 files" in capsys.readouterr().out
    [file] = (tmp_path / "out").rglob("*.parquet")
    assert pyarrow.parquet.read_table(file)["clip_id"].to_pylist() == sorted(clips)[:2]
    assert export_parquet(catalog, str(tmp_path / "none"), "SELECT clip_id FROM latents WHERE false") == (0, 0, [])


@pytest.mark.parametrize(
    ("select", "table", "said"),
    [("SELECT 1 AS x", None, "clip_id"), ("SELEC 1", None, "syntax"), (None, "clips", "no table 'clips'")],
)
def test_wrong_sql_and_wrong_tables_are_refused(tmp_path, select, table, said):
    catalog, _ = catalog_of(tmp_path, CONTRACT, [range(1)])
    with pytest.raises(UserError, match=said):
        export_parquet(catalog, str(tmp_path / "out"), select, table)
    assert not (tmp_path / "out").exists()


def test_a_catalog_without_latents_says_so(tmp_path):
    catalog = Catalog.open_or_create(str(tmp_path / "catalog"))
    catalog.create()
    with pytest.raises(UserError, match="has no latents"):
        export_parquet(catalog, str(tmp_path / "out"))


def test_a_damaged_shard_is_told_and_has_no_file_and_the_others_have(tmp_path, capsys):
    catalog, _ = catalog_of(tmp_path, CONTRACT)
    damaged = sorted(Path(catalog.uri, "shards").rglob("*.tar"))[0]
    content = bytearray(damaged.read_bytes())
    content[-2500:-2400] = bytes(100)
    damaged.write_bytes(content)
    assert run_export(catalog.uri, str(tmp_path / "out")) == 1
    out, err = capsys.readouterr()
    assert str(damaged) in err and "is damaged" in err and "1 failed" in out
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != MARKER]
    assert len(left) == 1 and left[0].stem != damaged.stem


def test_a_folder_of_another_selection_is_refused_and_the_same_one_is_renewed(tmp_path, capsys):
    """Both have files of the same shards, of other clips."""
    catalog, _ = catalog_of(tmp_path, CONTRACT)
    assert run_export(catalog.uri, str(tmp_path / "out"), SOME) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")}
    with pytest.raises(UserError, match=r"holds another export, of select SELECT .* where this one has none"):
        export_parquet(catalog, str(tmp_path / "out"))
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")} == before
    assert run_export(catalog.uri, str(tmp_path / "out"), SOME) == 0


def test_a_folder_that_takes_no_file_is_one_line_and_nothing_is_left(tmp_path):
    catalog, _ = catalog_of(tmp_path, CONTRACT)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write to .*file"):
        export_parquet(catalog, str(tmp_path / "file"))
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(UserError, match="No space left"):
            export_parquet(catalog, str(disk))
        assert [path for path in disk.rglob("*") if path.is_file() and path.suffix != ".parquet"] == [disk / MARKER]
        assert len([path for path in disk.rglob("*.parquet")]) <= 1
    finally:
        subprocess.run(["umount", disk], check=True)
