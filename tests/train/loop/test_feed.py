"""A step is prepared while the one before is computed, which changes nothing that is learned, saved or said."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.train.made_up import data
from tests.train.runs import config, train, weights
from train.data.conditions import Conditions
from train.devices.parallel import Ranks
from train.loop.feed import StepFeed
from train.loop.network import build
from train.loop.tasks import task_for

CHOSEN = config(conditions={"text_dropout": 0.5, "dropout": 0.5, "masks": {"predict": 0.5, "spatial": 0.4}})


def fed(steps, accumulate=1, ranks=None, **made):
    """The prepared steps, and the loader's step when each was taken."""
    ranks = ranks or Ranks()
    there = data(4, ranks.rank, ranks.world, **made)
    network = build(CHOSEN, there)
    conditions = Conditions(there, network.settings.conditions, 0, 0.5, 0.5, True)
    feed = StepFeed(there.loader, conditions, task_for(CHOSEN, network, there, ranks.device), ranks, accumulate)
    try:
        return [feed.take(step, more=step + 1 < steps) for step in range(steps)], there.loader
    finally:
        feed.close()


def joined(prepared, name):
    return torch.cat([getattr(drawn, name) for _, drawn in prepared.parts])


def test_draws_follow_from_the_step_and_the_place_of_a_clip_alone():
    whole, _ = fed(4)
    cut, _ = fed(4, accumulate=2)
    ranks = [fed(4, ranks=Ranks(rank, 2))[0] for rank in range(2)]
    for step, one in enumerate(whole):
        for name in ("t", "known", "kept"):
            wanted = joined(one, name)
            assert torch.equal(joined(cut[step], name), wanted)
            assert torch.equal(torch.cat([joined(rank[step], name) for rank in ranks]), wanted)
    assert len({tuple(joined(each, "t").tolist()) for each in whole}) == 4


def test_the_next_step_is_prepared_and_no_other():
    there = data(4)
    network = build(CHOSEN, there)
    task, asked = task_for(CHOSEN, network, there, torch.device("cpu")), []
    draw = task.draw
    task.draw = lambda part, step, places: asked.append((step, threading.current_thread())) or draw(part, step, places)
    conditions = Conditions(there, network.settings.conditions, 0, 0.5, 0.5, True)
    feed = StepFeed(there.loader, conditions, task, Ranks(), 1)
    first = feed.take(0, more=True)
    second = feed.take(1, more=False)
    feed.close()
    assert [step for step, _ in asked] == [0, 1]
    assert threading.current_thread() not in {thread for _, thread in asked}
    assert (first.loader_state, second.loader_state) == ({"step": 1}, {"step": 2})


def test_nothing_is_read_beyond_the_last_step():
    _, loader = fed(3)
    assert loader.step == 3


def test_a_checkpoint_says_the_position_after_its_own_step(tmp_path):
    """Not that of the step that was being prepared as it was saved."""
    training = train(tmp_path / "run", steps=8, checkpoint={"every": 3, "keep": 5})
    positions = {}
    for step in training.checkpoints.steps():
        numbers = (training.checkpoints.place(step) / "numbers.json").read_text()
        positions[step] = int(numbers.split('"loader": {"step": ')[1].split("}")[0])
    assert positions == {3: 3, 6: 6, 8: 8}


def test_what_the_loader_raises_comes_at_its_own_step():
    class Fails(type(data(4).loader)):
        def __iter__(self):
            batches = super().__iter__()
            yield next(batches)
            yield next(batches)
            raise OSError("the disk is gone")

    there = data(4)
    there.loader.__class__ = Fails
    network = build(CHOSEN, there)
    conditions = Conditions(there, network.settings.conditions, 0, 0.5, 0.5, True)
    feed = StepFeed(there.loader, conditions, task_for(CHOSEN, network, there, torch.device("cpu")), Ranks(), 1)
    feed.take(0, more=True)
    feed.take(1, more=True)
    with pytest.raises(OSError, match="the disk is gone"):
        feed.take(2, more=True)
    feed.close()


def test_deterministic_kernels_hold_for_the_run_and_no_longer(tmp_path):
    """And a run that is stopped and resumed has the same parameters bit by bit."""
    from train.loop.training import Training

    seen = []

    def stop():
        seen.append(torch.are_deterministic_algorithms_enabled())
        return len(seen) == 3

    Training(config(deterministic=True), data(4), tmp_path / "run", stop=stop, quiet=True).run()
    assert seen == [True] * 3 and not torch.are_deterministic_algorithms_enabled()
    train(tmp_path / "run", resume=True, deterministic=True)
    train(tmp_path / "whole", deterministic=True)
    for group in ("model", "ema", "optimizer"):
        one, two = weights(tmp_path / "run", group), weights(tmp_path / "whole", group)
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
