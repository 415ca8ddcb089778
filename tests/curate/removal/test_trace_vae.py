"""`clipmill trace` of a VAE's run, of what was made with its latents, and of a student of that."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.cli.main import main
from curate.datasets.create import run_dataset_create
from curate.training.data import training_data
from curate.training.vae_order import ClipOrder
from stages.windows.buckets import Bucket
from tests.catalog_rows import commit_rows
from tests.curate.removal.test_trace import counts, traced
from tests.shard_catalogs import BUCKET, clips_of, commit, encoded, publish, rows_of
from tests.vae_models import TINY
from train.config.training import TrainConfig
from train.devices.parallel import Ranks
from train.loop.training import Training
from train.run.lineage import TEACHER, ancestor
from train.run.log import read_log
from train.vae.training import VAETraining

VAE = {
    "kind": "vae",
    "model": {"size": "debug", **TINY},
    "steps": 6,
    "batch_size": 3,
    "clips": {"buckets": [BUCKET], "fps": 8, "image_share": 0.3},
    "loss": {"pixels": "mse", "perceptual": "none", "adversarial": 0},
    "optimizer": {"warmup": 1},
    "validation": {"share": 0.1, "least": 1, "clips": 2},
    "checkpoint": {"every": 4, "keep": 9},
}
DIT = {
    "kind": "dit",
    "model": {"size": "debug", "width": 48, "depth": 1, "heads": 4},
    "steps": 3,
    "batch_size": 2,
    "peak_tflops": 0.1,
}


def written(folder: Path, name: str, config: dict) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Films of which one is gone, a VAE trained on them in two parts, latents of its first part, a run on these, and a
    student of that run; and the clips of every step of the VAE.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trace_vae")
    sources, clips = clips_of(folder, films=5)
    catalog = Catalog.open_or_create(str(folder / "catalog"))
    with Ledger(catalog, "sources", "source_id", uuid.uuid4().hex) as ledger:
        commit_rows(ledger, {"clips": clips, "sources": sources})
    seen: list[list[str]] = []
    step = VAETraining.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VAETraining, "train_step", lambda self, batch: seen.append(batch.clip_ids) or step(self, batch))
        gone = Path(sources[0]["uri"])
        gone.rename(f"{gone}.away")
        train = ["train", written(folder, "vae", VAE), "--catalog", catalog.uri, "-o", str(folder / "vae")]
        assert main(train) == 0
        contract, latents = encoded(clips[4:], sources, folder / "vae/model")
        commit(catalog, rows_of(publish(catalog.uri, contract, latents, folder / "vae/model"), contract, latents))
        assert main([*train, "--resume", "--set", "steps=11"]) == 0
    run_dataset_create("all", catalog.uri, "SELECT clip_id FROM clips", output=str(folder / "datasets"))
    dataset = folder / "datasets/all"
    assert main(["train", written(folder, "dit", DIT), "--dataset", str(dataset), "-o", str(folder / "dit")]) == 0
    data, loader, _ = training_data(dataset, TrainConfig.from_dict(DIT | {"seed": 5}), Ranks())
    teacher = ancestor(folder / "dit", TEACHER)
    extra = {"dataset": str(dataset)}
    config = TrainConfig.from_dict(DIT | {"seed": 5})
    Training(config, data, folder / "student", extra=extra, learned_from=[teacher], quiet=True).run()
    loader.close()
    return folder, seen


@pytest.mark.slow
def test_a_vae_s_clips_are_counted_and_what_its_latents_made_inherits_them(made, capsys):
    folder, seen = made
    saw = {until: Counter(clip for step in seen[:until] for clip in step) for until in (4, 6, 8, 11)}
    places = ["--catalog", str(folder / "catalog"), "--runs", str(folder / "student")]
    rows = traced(capsys, *places, "--where", "true", "--by-clip")
    for step in saw:
        assert counts(rows, folder / "vae", step) == saw[step]
    failed = {clip for line in read_log(folder / "vae") for clip in line.get("failed", ())}
    assert failed and not failed & set(saw[11])
    assert {row["clip_id"] for row in rows if row["how"] == "held out" and row["where"] == str(folder / "vae")}
    by_vae = [row for row in rows if row["how"] == "VAE"]
    assert {row["via"] for row in by_vae} == {f"{folder / 'vae'} step 6"}  # the latents are of its first part
    for where, step in (("latents", ""), (folder / "datasets/all", ""), (folder / "dit", "3")):
        assert counts(by_vae, where, step, "VAE") == saw[6]


@pytest.mark.slow
def test_a_student_inherits_from_its_teacher_and_whom_that_learned_from(made, capsys):
    folder, _ = made
    rows = traced(capsys, "--catalog", str(folder / "catalog"), "--runs", str(folder / "student"), "--where", "true")
    of_student = {row["how"]: row["via"] for row in rows if row["where"] == str(folder / "student")}
    assert of_student["teacher"] == f"{folder / 'dit'} step 3" and of_student["trained on"] == ""
    assert of_student["VAE"] == f"{folder / 'vae'} step 6"


@pytest.mark.slow
def test_a_run_whose_folder_is_gone_is_told_with_what_to_give(made, capsys):
    folder, _ = made
    (folder / "vae").rename(folder / "moved")
    try:
        assert main(["trace", "--catalog", str(folder / "catalog"), "--where", "true", "--format", "json"]) == 1
        shown = capsys.readouterr()
        assert json.loads(shown.out) and f"is not in {folder / 'vae'} on this machine: give --runs DIR" in shown.err
        traced(capsys, "--catalog", str(folder / "catalog"), "--where", "true", "--runs", str(folder / "moved"))
    finally:
        (folder / "moved").rename(folder / "vae")


groups = st.dictionaries(st.sampled_from([1, 5, 9]), st.integers(1, 7), max_size=3)


@settings(max_examples=80, deadline=None)
@given(
    groups.filter(bool), groups, st.floats(0, 1), st.integers(1, 5), st.integers(0, 99), st.integers(1, 40), st.data()
)
def test_counts_of_a_vae_s_order_are_those_of_its_steps_however_long_the_run(
    images, videos, share, size, seed, n, data
):
    named = [
        {Bucket(frames, 8, 8): [f"{kind}{frames}-{i}" for i in range(count)] for frames, count in sorted(of.items())}
        for kind, of in (("image", images), ("video", videos))
    ]
    step = data.draw(st.integers(0, n))
    expected = Counter(c for s in range(step) for c in ClipOrder(*named, share, size, seed, n).step(s)[2])
    longer = ClipOrder(*named, share, size, seed, n + data.draw(st.integers(0, 30)))  # a run that was resumed to go on
    found: Counter[str] = Counter()
    for (_, _, clips), drawn in zip(longer.groups, longer.counts_before(step), strict=True):
        found.update(dict(zip(clips, drawn.tolist(), strict=True)))
    assert +found == expected
