"""`clipmill trace` says what saw clips, as logs of real training runs have it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from curate.cli.main import main
from curate.datasets.create import run_dataset_create
from curate.datasets.files import open_dataset
from curate.datasets.pseudonyms import pseudonym
from curate.errors import UserError
from curate.loader import Loader
from curate.removal.trace_counts import DatasetCounter
from curate.removal.trace_runs import RunRecord
from curate.training.held_out import split
from tests.curate.loader import latents
from tests.curate.removal.logged_training import seen, train
from train.config.training import ValidationConfig

pytestmark = pytest.mark.slow

BUCKETS = {"5x32x32": 23, "1x32x32": 9}
CONFIG = {
    "kind": "dit",
    "model": {"size": "debug", "width": 48, "depth": 1, "heads": 4},
    "steps": 11,
    "batch_size": 4,
    "accumulate": 2,
    "peak_tflops": 0.1,
    "optimizer": {"warmup": 1},
    "loader": {"bad": "skip"},
    "validation": {"share": 0.2, "by": "clip", "least": 0, "every": 5},
    "checkpoint": {"every": 4, "keep": 9},
}


def make_dataset(folder: Path, uri: str, name: str, select: str = "SELECT clip_id FROM clips") -> Path:
    weight = "1 + hash(clip_id) % 3" if name == "weighted" else None
    run_dataset_create(name, uri, select, weight, output=str(folder / "datasets"))
    return folder / "datasets" / name


def arguments(folder: Path, dataset: Path, run: str, *more: str, **changes) -> list[str]:
    path = folder / f"{run}.json"
    path.write_text(json.dumps({**CONFIG, **changes}))
    return ["train", str(path), "--dataset", str(dataset), "-o", str(folder / run), *more]


def damage(dataset: Path, row: int) -> str:
    """Flips a bit of a sample's latents; gives the clip's id."""
    about = open_dataset(dataset)
    clip, shard, offset = (
        column[row].as_py() for column in about.columns(["clip_id", "shard", "mean_offset"]).values()
    )
    with (Path(about.root) / about.shards[shard].path).open("rb+") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    return clip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A catalog with two datasets, one of them weighted and with two damaged samples, and what was trained on them:
    by one process, by two and then by one, and from the weights of another run.
    """
    folder = tmp_path_factory.mktemp("trace")
    uri = latents.make_catalog(folder / "catalog", BUCKETS, per_shard=6)
    plain, weighted = (make_dataset(folder, uri, name) for name in ("plain", "weighted"))
    bad = [damage(weighted, row) for row in (2, 17)]
    train(arguments(folder, weighted, "ranks", "--set", "steps=6"), folder / "ranks.steps", ranks=2)
    train(arguments(folder, weighted, "ranks", "--resume", "--set", "accumulate=1"), folder / "ranks.steps")
    train(arguments(folder, plain, "child", start=str(folder / "ranks"), seed=3), folder / "child.steps")
    return folder, bad


def traced(capsys, *more: str, code: int = 0) -> list[dict]:
    capsys.readouterr()
    assert main(["trace", *more, "--format", "csv"]) == code
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def counts(rows: list[dict], run: Path, step: int, how: str = "trained on") -> Counter[str]:
    chosen = [r for r in rows if r["where"] == str(run) and r["step"] == str(step) and r["how"] == how]
    assert len({row["what"] for row in chosen}) <= 2  # a checkpoint, and the model of the same step
    return Counter({row["clip_id"]: int(row["times"]) for row in chosen})


def test_counts_are_those_of_the_log_that_the_ranks_kept_up_to_every_checkpoint(runs, capsys):
    folder, bad = runs
    rows = traced(capsys, "--catalog", str(folder / "catalog"), "--where", "true", "--by-clip")
    for run, steps in (("ranks", (4, 6, 8, 11)), ("child", (4, 8, 11))):
        for step in steps:
            expected = seen(folder / f"{run}.steps", step)
            assert counts(rows, folder / run, step) == expected
            assert expected.total() == 4 * step
    replaced = [e for line in (folder / "ranks/log.jsonl").open() for e in json.loads(line).get("replaced", ())]
    assert {each["clip_id"] for each in replaced} <= set(bad) and replaced
    assert not set(counts(rows, folder / "ranks", 11)) & set(bad)


def test_a_run_that_starts_from_another_inherits_what_that_saw_by_then(runs, capsys):
    folder, _ = runs
    rows = traced(capsys, "--catalog", str(folder / "catalog"), "--where", "true", "--by-clip")
    assert counts(rows, folder / "child", 4, "start") == seen(folder / "ranks.steps", 11)
    via = {row["via"] for row in rows if row["how"] == "start"}
    assert via == {f"{folder / 'ranks'} step 11"}


def test_held_out_clips_are_said_to_be_seen_in_validation_only(runs, capsys):
    folder, _ = runs
    held = split(open_dataset(folder / "datasets/plain"), ValidationConfig(share=0.2, by="clip", least=0))[1]
    ids = held.columns(["clip_id"])["clip_id"].to_pylist()
    where = f"clip_id IN ({', '.join(map(repr, ids))})"
    rows = traced(capsys, "--catalog", str(folder / "catalog"), "--where", where)
    assert {row["how"] for row in rows} == {"holds", "held out"}
    assert {(row["clips"], row["times"]) for row in rows} == {(str(len(ids)), "")}


def test_a_resumed_run_whose_dataset_is_gone_says_so_and_the_rest_is_traced(runs, capsys):
    folder, _ = runs
    dataset = folder / "datasets/weighted"
    dataset.rename(folder / "away")
    where = ["--catalog", str(folder / "catalog"), "--where", "true", "--runs", str(folder / "ranks")]
    try:
        assert main(["trace", *where, "--format", "json"]) == 1
        shown = capsys.readouterr()
        said = [line for line in shown.err.splitlines() if str(folder / "ranks") in line]
        assert len(said) == 1 and f"is not at {dataset}: give --datasets DIR" in said[0]
        rows = json.loads(shown.out)
        assert {row["where"] for row in rows} == {str(folder / "datasets/plain"), str(folder / "child")}
        found = traced(capsys, *where, "--datasets", str(folder / "away"))
        assert {row["where"] for row in found if row["how"] == "trained on"} == {
            str(folder / n) for n in ("ranks", "child")
        }
    finally:
        (folder / "away").rename(dataset)


def test_a_dataset_that_a_purge_retired_still_says_what_runs_on_it_drew(runs, tmp_path, capsys):
    """Pseudonyms stand in its index for the ids of what was purged; whoever knows one can ask for it."""
    folder, _ = runs
    catalog = str(folder / "catalog")
    before = traced(capsys, "--catalog", catalog, "--where", "true", "--by-clip")
    retired = shutil.copytree(folder / "datasets/weighted", tmp_path / "weighted")
    index = parquet.read_table(retired / "index.parquet")
    gone = set(index["clip_id"].to_pylist()[::5])
    hidden = [pseudonym(clip) if clip in gone else clip for clip in index["clip_id"].to_pylist()]
    parquet.write_table(index.set_column(0, "clip_id", [hidden]), retired / "index.parquet")
    assert not any(clip.encode() in (retired / "index.parquet").read_bytes() for clip in gone)
    found = traced(capsys, "--catalog", catalog, "--where", "true", "--by-clip", "--datasets", str(retired))
    moved = [{**row, "where": row["where"].replace(str(folder / "datasets/weighted"), str(retired))} for row in before]
    assert sorted(map(str, found)) == sorted(map(str, moved))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--where", "clip_id = 'x'"], "no clip of this catalog is WHERE clip_id = 'x'"),
        (["--where", "nope = 1"], "--where nope = 1: there is no column nope"),
        (["--where", "CAST(uri AS INTEGER) = 1"], "Could not convert string 'film.mp4' to INT32"),
        (["--where", "true; DROP TABLE clips"], "--where true; DROP TABLE clips: "),
        (["--where", ""], "--where: give a condition"),
        (["--where", "true", "--runs", "{nowhere}"], "--runs {nowhere}: there is no such folder"),
        (["--where", "true", "--runs", "{catalog}"], "no run of `clipmill train` is in this folder or below it"),
        (["--where", "true", "--datasets", "{catalog}"], "no dataset is in this folder or below it"),
    ],
)
def test_what_cannot_be_traced_is_one_line_and_exit_code_2(more, said, runs, capsys):
    places = {"catalog": str(runs[0] / "catalog"), "nowhere": str(runs[0] / "nowhere")}
    assert main(["trace", "--catalog", places["catalog"], *(each.format(**places) for each in more)]) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert said.format(**places) in line and not shown.out


def test_json_and_table_say_the_same(runs, capsys):
    folder, _ = runs
    rows = {}
    for form in ("json", "table"):
        assert main(["trace", "--catalog", str(folder / "catalog"), "--where", "true", "--format", form]) == 0
        rows[form] = capsys.readouterr().out
    found = json.loads(rows["json"])
    assert len(found) == sum(line.startswith("│") for line in rows["table"].splitlines())
    assert all(str(row["where"]) in rows["table"] for row in found)


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_of_any_run_are_those_of_the_loader_that_it_would_read_with(runs, data):
    """Whatever batch size, seed, mix and held-out share, without training: the loader's own batches."""
    folder, _ = runs
    dataset = open_dataset(folder / "datasets" / data.draw(st.sampled_from(["plain", "weighted"])))
    share = data.draw(st.sampled_from([0.0, 0.2, 0.5]))
    mix = data.draw(st.none() | st.fixed_dictionaries({name: st.sampled_from([0.0, 0.3, 1.0]) for name in BUCKETS}))
    if mix is not None and not sum(mix.values()):
        mix = None
    config = {
        "kind": "dit", "batch_size": data.draw(st.integers(1, 9)), "seed": data.draw(st.integers(0, 2**40)),
        "loader": {"mix": mix, "bad": "raise"}, "validation": {"share": share, "by": "clip", "least": 1},
    }  # fmt: skip
    steps = data.draw(st.integers(0, 40))
    clips = pa.array([clip for ids in latents.clip_ids(BUCKETS).values() for clip in ids])
    trained, _ = split(dataset, ValidationConfig.from_dict(config["validation"]))
    try:
        loader = Loader(trained, batch_size=config["batch_size"], seed=config["seed"], mix=mix, verify="off")
    except UserError:
        assume(False)
    with loader:
        expected = Counter(clip for _ in range(steps) for clip in next(loader).clip_ids)
    found = DatasetCounter(RunRecord(folder / "none", config), dataset, clips).before(steps)
    assert +Counter(dict(zip(clips.to_pylist(), found.tolist(), strict=True))) == expected


def test_a_purge_records_what_saw_the_clips_and_the_others_are_traced_as_before(tmp_path, capsys):
    """The run held clips out by a hash of their ids, also of one that is purged."""
    uri = latents.make_catalog(tmp_path / "catalog", BUCKETS, per_shard=6)
    dataset = make_dataset(tmp_path, uri, "weighted")
    train(arguments(tmp_path, dataset, "run"), tmp_path / "run.steps")
    rows = {how: set() for how in ("trained on", "held out")}
    before = traced(capsys, "--catalog", uri, "--where", "true", "--by-clip")
    for row in before:
        rows.setdefault(row["how"], set()).add(row["clip_id"])
    gone = [min(rows["trained on"]), min(rows["held out"])]
    chosen = f"clip_id IN ({', '.join(map(repr, gone))})"
    assert main(["trace", "--catalog", uri, "--where", chosen, "--format", "json"]) == 0
    saw = json.loads(capsys.readouterr().out)
    assert main(["purge", "--catalog", uri, "--where", chosen, "--of", "clips", "--yes"]) == 0
    (record,) = (tmp_path / "catalog/_removals").glob("*.json")
    assert json.loads(record.read_text())["seen"] == {"clips": 2, "sightings": saw, "problems": []}
    assert "retired" in json.loads((dataset / "dataset.json").read_text())
    after = traced(capsys, "--catalog", uri, "--where", "true", "--by-clip")
    of_run = [[r for r in rows if r["where"] == str(tmp_path / "run")] for rows in (before, after)]
    assert of_run[1] == [row for row in of_run[0] if row["clip_id"] not in gone] and of_run[1]
