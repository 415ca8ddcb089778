"""The face for other people's trainers: torch's DataLoader gives the loader's batches in the loader's order."""

from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from curate.errors import UserError
from curate.loader import LatentBatches, Loader


def steps(batches):
    return [(b["step"], b["clip_ids"]) for b in batches]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_gives_the_loaders_batches_in_its_order(dataset, workers):
    data = LatentBatches(dataset, batch_size=2, seed=4)
    found = list(DataLoader(data, batch_size=None, num_workers=workers))
    with Loader(dataset, batch_size=2, seed=4) as loader:
        wanted = list(islice(loader, loader.len_epoch))
    assert len(found) == len(data) == len(wanted)
    for batch, own in zip(found, wanted, strict=True):
        assert (batch["step"], batch["clip_ids"]) == (own.step, own.clip_ids)
        assert torch.equal(batch["mean"], own.latents["mean"])
        assert torch.equal(batch["text"], own.text)


def test_epochs_follow_one_another_and_a_resume_goes_on_within_one(dataset):
    data = LatentBatches(dataset, batch_size=2)
    epochs = []
    for epoch in range(3):
        data.set_epoch(epoch)
        epochs.append(steps(DataLoader(data, batch_size=None)))
    with Loader(dataset, batch_size=2) as loader:
        wanted = [(b.step, b.clip_ids) for b in islice(loader, sum(map(len, epochs)))]
    assert [step for epoch in epochs for step in epoch] == wanted
    other = LatentBatches(dataset, batch_size=2)
    other.load_state_dict(data.state_dict(step=wanted[-3][0]))
    assert steps(DataLoader(other, batch_size=None, num_workers=2)) == wanted[-3:]
    with pytest.raises(UserError, match="another dataset, seed or batch_size"):
        LatentBatches(dataset, batch_size=4).load_state_dict(data.state_dict())


def test_an_endless_one_goes_on_over_the_epochs(dataset):
    data = DataLoader(LatentBatches(dataset, batch_size=2, endless=True), batch_size=None)
    assert [batch["step"] for batch in islice(data, 30)] == list(range(30))


def test_ranks_come_from_torch_distributed(dataset, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    half = next(iter(LatentBatches(dataset, batch_size=4)))
    with Loader(dataset, batch_size=4) as loader:
        assert half["clip_ids"] == next(loader).clip_ids[2:]


def test_what_is_wrong_is_said_before_any_worker_starts(dataset):
    with pytest.raises(UserError, match="too few clips for one batch"):
        LatentBatches(dataset, batch_size=64)
