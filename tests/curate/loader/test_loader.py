"""Batches against what was written: the right bytes, in an order that ranks, resumes and bad samples do not disturb."""

import json
import shutil
import sys
import threading
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.datasets.create import run_dataset_create
from curate.errors import UserError
from curate.loader import BadSample, Loader
from tests.curate.loader.latents import DIM, EMPTY, HOLES, Z, contract, fields_of, make_catalog

quick = settings(max_examples=15, deadline=None)
TEXTS = [("text", 0.5), ("text_short", 0.5)]


def batches(folder, count, start=0, **options):
    options = {"batch_size": 4, **options}
    with Loader(folder, **options) as loader:
        if start:
            loader.load_state_dict(loader.state_dict() | {"step": start})
        return list(islice(loader, count))


def same(one, other):
    """Whether two batches agree in all that they hold, bit by bit."""
    assert (one.step, one.epoch, one.bucket, one.clip_ids) == (other.step, other.epoch, other.bucket, other.clip_ids)
    assert one.latents.keys() == other.latents.keys()
    pairs = [(one.latents[name], other.latents[name]) for name in one.latents]
    pairs += [(one.text, other.text), (one.text_mask, other.text_mask), (one.conditions, other.conditions)]
    for a, b in pairs:
        assert (a is None) == (b is None)
        assert a is None or (a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes())
    return True


def global_batch(parts):
    """The batch that the ranks' parts make."""
    first = parts[0]
    joined = [torch.cat([getattr(p, name) for p in parts]) for name in ("text", "text_mask", "conditions")]
    latents = {name: torch.cat([p.latents[name] for p in parts]) for name in first.latents}
    clips = [clip for p in parts for clip in p.clip_ids]
    return type(first)(first.step, first.epoch, first.bucket, clips, latents, *joined)


def test_every_sample_is_what_was_written(dataset):
    made = contract()
    for batch in batches(dataset, 12, text=TEXTS):
        shape = made.latent_shape(batch.bucket)
        for row, clip in enumerate(batch.clip_ids):
            wanted = fields_of(clip, shape, made)
            for field in ("mean", "logvar"):
                assert batch.latents[field].dtype == torch.float16
                assert np.array_equal(batch.latents[field][row].numpy(), wanted[field])
            tokens = int(batch.text_mask[row].sum())
            assert not batch.text[row, tokens:].any()
            assert batch.text_mask[row, :tokens].all()
            given = batch.text[row, :tokens].numpy()
            texts = [wanted[name] for name in ("text", "text_short") if name in wanted]
            assert any(given.shape == text.shape and np.array_equal(given, text) for text in texts)
            (motion,) = batch.conditions[row].tolist()
            number = int(clip, 16)
            assert motion == number or (number % 5 == 4 and motion != motion)


def test_both_texts_are_drawn_and_a_missing_one_gives_way_to_the_other(dataset):
    lengths = {}
    for batch in batches(dataset, 60, text=TEXTS):
        for clip, mask in zip(batch.clip_ids, batch.text_mask, strict=True):
            lengths.setdefault(clip, set()).add(int(mask.sum()))
    for clip, found in lengths.items():
        assert len(found) == (1 if int(clip, 16) % 3 == 0 else 2)


def test_a_sample_without_any_text_has_the_encoded_empty_prompt(dataset):
    for batch in batches(dataset, 10, text="text_short"):
        for clip, text, mask in zip(batch.clip_ids, batch.text, batch.text_mask, strict=True):
            if int(clip, 16) % 3 == 0:
                assert np.array_equal(text[: len(EMPTY)].numpy(), EMPTY)
                assert int(mask.sum()) == len(EMPTY)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Folders of datasets: bfloat16 without text, tokens, and texts whose masks have holes."""
    found = {}
    kinds = {
        "bfloat16": contract("bfloat16", text=False),
        "tokens": contract(tokens=50),
        "holes": contract(fingerprint=HOLES),
    }
    for name, made in kinds.items():
        folder = tmp_path_factory.mktemp(name)
        uri = make_catalog(folder / "catalog", made=made)
        run_dataset_create(name, uri, "SELECT clip_id FROM clips", output=str(folder))
        found[name] = folder / name, made
    return found


def test_bfloat16_comes_as_the_numbers_that_were_stored(kinds):
    folder, made = kinds["bfloat16"]
    for batch in batches(folder, 4):
        assert batch.text is None
        for row, clip in enumerate(batch.clip_ids):
            bits = fields_of(clip, made.latent_shape(batch.bucket), made)["mean"]
            wanted = torch.from_numpy((bits.astype(np.uint32) << 16).view(np.float32))
            assert batch.latents["mean"].dtype == torch.bfloat16
            assert torch.equal(batch.latents["mean"][row].float(), wanted)


def test_a_mask_with_holes_comes_as_it_was_stored(kinds):
    folder, made = kinds["holes"]
    holes = 0
    for batch in batches(folder, 6):
        for clip, mask in zip(batch.clip_ids, batch.text_mask, strict=True):
            wanted = fields_of(clip, made.latent_shape(batch.bucket), made)["text_mask"]
            assert mask.dtype == torch.bool
            assert mask[: len(wanted)].tolist() == (wanted > 0).tolist()
            assert not mask[len(wanted) :].any()
            holes += int((wanted == 0).sum())
    assert holes


def test_tokens_come_as_whole_numbers_of_64_bits(kinds):
    folder, made = kinds["tokens"]
    for batch in batches(folder, 4):
        assert set(batch.latents) == {"tokens"}
        assert batch.latents["tokens"].dtype == torch.int64
        for row, clip in enumerate(batch.clip_ids):
            wanted = fields_of(clip, made.latent_shape(batch.bucket), made)["tokens"]
            assert np.array_equal(batch.latents["tokens"][row].numpy(), wanted)


@pytest.mark.parametrize("world", [2, 4, 8])
def test_global_batches_are_the_same_for_any_number_of_ranks(dataset, world):
    alone = batches(dataset, 8, batch_size=8, text=TEXTS, seed=3)
    ranks = [batches(dataset, 8, batch_size=8, text=TEXTS, seed=3, rank=r, world=world) for r in range(world)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert len({part.text.shape for part in parts}) == 1
        assert same(global_batch(parts), whole)


@quick
@given(st.integers(0, 40), st.sampled_from([1, 2, 4, 8]), st.integers(0, 3))
def test_a_resume_at_any_step_with_any_number_of_ranks_goes_on_exactly(dataset, stop, world, seed):
    options = {"batch_size": 8, "text": TEXTS, "seed": seed, "verify": "off"}
    with Loader(dataset, **options) as loader:
        for _ in islice(loader, stop):
            pass
        state = json.loads(json.dumps(loader.state_dict()))
        wanted = list(islice(loader, 2))
    parts = []
    for rank in range(world):
        with Loader(dataset, **options, rank=rank, world=world) as loader:
            next(loader)  # what was read ahead is let go of
            loader.load_state_dict(state)
            parts.append(list(islice(loader, 2)))
    for whole, *own in zip(wanted, *parts, strict=True):
        assert same(global_batch(own), whole)


def test_epochs_hold_every_sample_once(dataset):
    with Loader(dataset, batch_size=1) as loader:
        assert loader.len_epoch == 17
        orders = [[batch.clip_ids[0] for batch in islice(loader, 17)] for _ in range(3)]
    assert all(sorted(order) == sorted(orders[0]) and len(set(order)) == 17 for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_the_state_of_another_order_is_refused(dataset):
    with Loader(dataset, batch_size=4) as loader, Loader(dataset, batch_size=2) as other:
        with pytest.raises(UserError, match="another dataset, batch_size"):
            other.load_state_dict(loader.state_dict())
        with pytest.raises(UserError, match="seed 1, not 0"):
            other.load_state_dict(loader.state_dict() | {"seed": 1})


@pytest.fixture
def copy(catalog, dataset, tmp_path):
    """(dataset, folder with shards that may be damaged); root= of the second reads the copies."""
    shutil.copytree(f"{catalog}/shards", tmp_path / "shards")
    return dataset, tmp_path


def place_of(folder, root, row, field):
    """(path, offset, length) of a sample's field."""
    from curate.datasets.files import open_dataset

    opened = open_dataset(folder)
    columns = opened.columns(["shard", f"{field}_offset", f"{field}_length"])
    shard, offset, length = (columns[name][row].as_py() for name in columns)
    return root / opened.shards[shard].path, offset, length


def flip(path, at, bit):
    with path.open("rb+") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_flipped_bit_of_a_sample_is_caught(copied, data):
    folder, root = copied
    row, field = data.draw(st.integers(0, 16)), data.draw(st.sampled_from(["mean", "logvar", "text"]))
    path, offset, length = place_of(folder, root, row, field)
    at, bit = offset + data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, 7))
    flip(path, at, bit)
    try:
        with pytest.raises(BadSample, match=f"its {field} is not what was written"):
            batches(folder, 17, batch_size=1, root=str(root))
    finally:
        flip(path, at, bit)


@pytest.fixture(scope="module")
def copied(catalog, dataset, tmp_path_factory):
    root = tmp_path_factory.mktemp("copied")
    shutil.copytree(f"{catalog}/shards", root / "shards")
    return dataset, root


def test_verification_first_always_and_off(copy):
    folder, root = copy
    path, offset, _ = place_of(folder, root, 3, "mean")
    loaders = {v: Loader(folder, batch_size=1, verify=v, root=str(root)) for v in ("off", "first", "always")}
    for loader in loaders.values():
        list(islice(loader, 17))  # the first epoch is whole
        loader.load_state_dict(loader.state_dict())  # nothing read ahead
    flip(path, offset, 0)
    list(islice(loaders["off"], 34))
    list(islice(loaders["first"], 17))
    with pytest.raises(BadSample):
        list(islice(loaders["always"], 17))
    with pytest.raises(BadSample):  # a new process begins anew, wherever it goes on
        batches(folder, 17, start=40, batch_size=1, verify="first", root=str(root))


def test_skipped_samples_are_counted_logged_and_replaced_alike_on_any_ranks_and_after_a_resume(copy, caplog):
    folder, root = copy
    for row in (1, 8):
        path, offset, _ = place_of(folder, root, row, "mean")
        flip(path, offset, 5)
    bad = {f"{i:032x}" for i in range(17)}
    options = {"batch_size": 4, "bad": "skip", "root": str(root), "text": TEXTS, "seed": 5}
    with Loader(folder, **options) as loader:
        whole = list(islice(loader, 20))
        assert loader.skipped >= 8  # 20 batches are more than 4 epochs of 2 bad samples
    came = {clip for batch in whole for clip in batch.clip_ids}
    assert len(bad - came) == 2
    assert caplog.text.count("takes its place") >= 8
    halves = [batches(folder, 20, rank=r, world=2, **options) for r in (0, 1)]
    resumed = batches(folder, 3, start=17, **options)
    for step, parts in enumerate(zip(*halves, strict=True)):
        assert same(global_batch(parts), whole[step])
    for late, early in zip(resumed, whole[17:], strict=True):
        assert same(late, early)


def test_a_dataset_whose_samples_are_all_bad_ends_with_one_line(copy):
    folder, root = copy
    for row in range(17):
        path, offset, _ = place_of(folder, root, row, "mean")
        flip(path, offset, 1)
    with pytest.raises(UserError, match="none of 64 samples that could take its place"):
        batches(folder, 1, bad="skip", root=str(root))


def test_shards_that_have_moved_are_found_by_root_and_missed_without(copy, catalog):
    folder, root = copy
    moved = shutil.copytree(folder, root / "dataset")
    about = json.loads((moved / "dataset.json").read_text())
    (moved / "dataset.json").write_text(json.dumps(about | {"root": "/nowhere/catalog"}))
    with pytest.raises(UserError, match=r"5 of 5 shards are missing below /nowhere/catalog.*--shards"):
        Loader(moved, batch_size=4)
    assert same(batches(moved, 1, root=str(root))[0], batches(folder, 1)[0])
    path, *_ = place_of(folder, root, 0, "mean")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"1 of 5 shards are not as they were written"):
        Loader(folder, batch_size=4, root=str(root))
    path.unlink()
    with pytest.raises(UserError, match="1 of 5 shards are missing"):
        Loader(folder, batch_size=4, root=str(root))


def test_what_can_not_work_is_one_line(dataset, tmp_path):
    for options, said in [
        ({"batch_size": 12}, "too few clips for one batch: 1x16x16 has 6 for a batch of 12, 5x16x24 has 11"),
        ({"batch_size": 4, "world": 3}, "batch_size 4 of bucket 1x16x16: expected a multiple of 3"),
        ({"batch_size": {"1x16x16": 4}}, "batch_size lacks a size for the bucket 5x16x24"),
        ({"batch_size": 4, "rank": 2, "world": 2}, "rank 2 of 2"),
        ({"batch_size": 4, "text": "subtitles"}, "no text 'subtitles': text, text_short"),
        ({"batch_size": 4, "fields": ["tokens"]}, "no latents 'tokens': it has mean, logvar"),
        ({"batch_size": 4, "mix": {"9x9x9": 1.0}}, "mix 9x9x9"),
        ({"batch_size": 4, "mix": {"1x16x16": 0.0}}, "give no sample"),
        ({"batch_size": 4, "verify": "sometimes"}, "verify 'sometimes'"),
        ({"batch_size": 4, "bad": "zero"}, "bad 'zero'"),
    ]:
        with pytest.raises(UserError, match=said):
            Loader(dataset, **options)
    with pytest.raises(UserError, match=r"no dataset in .*dataset create"):
        Loader(tmp_path, batch_size=4)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        Loader(tmp_path, batch_size=4)


def test_buckets_come_as_mix_says_and_with_their_own_batch_sizes(dataset):
    found = batches(dataset, 200, mix={"1x16x16": 0.75, "5x16x24": 0.25}, batch_size={"1x16x16": 2, "5x16x24": 4})
    rows = {name: sum(len(b.clip_ids) for b in found if b.bucket == name) for name in ("1x16x16", "5x16x24")}
    assert {len(b.clip_ids) for b in found if b.bucket == "5x16x24"} == {4}
    assert abs(rows["1x16x16"] / sum(rows.values()) - 0.75) < 0.03
    assert {b.bucket for b in batches(dataset, 20, mix={"5x16x24": 1.0})} == {"5x16x24"}


def test_only_the_fields_asked_for_are_read(dataset):
    batch = batches(dataset, 1, fields=["mean"], text=None)[0]
    assert set(batch.latents) == {"mean"}
    assert batch.text is None
    assert batch.text_mask is None


def test_batches_that_are_kept_are_never_written_over_and_others_memory_is_used_again(dataset):
    with Loader(dataset, batch_size=4, ahead=2) as loader:
        kept = [batch.latents["mean"][0, 0] for batch in islice(loader, 20)]  # a view of a view is enough
        wanted = [batch.latents["mean"][0, 0] for batch in batches(dataset, 20)]
        assert all(torch.equal(a, b) for a, b in zip(kept, wanted, strict=True))
        assert len(loader.buffers.all) >= 20
    with Loader(dataset, batch_size=4, ahead=2) as loader:
        for _ in islice(loader, 100):
            pass
        assert len(loader.buffers.all) <= 4


def test_a_loader_that_is_dropped_or_closed_ends_its_threads(dataset):
    def running():
        return [t for t in threading.enumerate() if t.name.startswith("clipmill-loader")]

    before = set(running())
    loader, closed = Loader(dataset, batch_size=4), Loader(dataset, batch_size=4)
    next(loader), next(closed)
    started = set(running()) - before
    assert len(started) == 4
    closed.close()
    del loader
    for thread in started:
        thread.join()


def test_verify_auto_warns_once_where_xxhash_is_missing(dataset, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "xxhash", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert batches(dataset, 2)
    assert caplog.text.count("xxhash is not installed") == 1
    with pytest.raises(UserError, match="pip install xxhash"):
        Loader(dataset, batch_size=4, verify="always")


def test_weights_of_the_dataset_are_followed(catalog, tmp_path):
    run_dataset_create(
        "weighed", catalog, "SELECT clip_id FROM clips", output=str(tmp_path),
        weight="CASE WHEN source_id = 's1' THEN 3.0 WHEN clip_id LIKE '%0' THEN 0 ELSE 1 END",
    )  # fmt: skip
    with Loader(tmp_path / "weighed", batch_size=1) as loader:
        clips = [batch.clip_ids[0] for batch in islice(loader, 17 * 40)]
    counts = {f"{i:032x}": clips.count(f"{i:032x}") for i in range(17)}
    heavy = sum(n for clip, n in counts.items() if int(clip, 16) % 4 == 3)
    assert counts[f"{0:032x}"] == counts[f"{16:032x}"] == 0
    assert abs(heavy / len(clips) - 12 / 23) < 0.03


def test_shapes_are_those_of_the_contract(dataset):
    shapes = {"5x16x24": (Z, 2, 2, 3), "1x16x16": (Z, 1, 2, 2)}
    for batch in batches(dataset, 6):
        assert tuple(batch.latents["mean"].shape) == (4, *shapes[batch.bucket])
        assert batch.text.shape[::2] == (4, DIM)
