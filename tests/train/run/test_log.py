"""A run's log: a line for every step, once, also after a kill and a resume."""

from __future__ import annotations

import json

import pytest
import torch

from train.run.log import Console, Log, read_log


def test_a_line_for_every_step_with_its_numbers(tmp_path):
    with_sink = []
    log = Log(tmp_path, sinks=(lambda step, numbers: with_sink.append((step, numbers)),))
    log.write(1, loss=0.5, times={"0.05": 1.0, "0.95": 2.0})
    log.write(2, loss=0.25)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 1, "loss": 0.5, "times": {"0.05": 1.0, "0.95": 2.0}},
        {"step": 2, "loss": 0.25},
    ]
    assert with_sink == [(1, {"loss": 0.5, "times/0.05": 1.0, "times/0.95": 2.0}), (2, {"loss": 0.25})]


def test_nan_stays_nan_in_words(tmp_path):
    log = Log(tmp_path)
    log.write(1, loss=float("nan"), lr=float("inf"), more={"x": 1.0})
    log.close()
    text = (tmp_path / "log.jsonl").read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["loss"] is None and found["not_finite"] == {"loss": "nan", "lr": "inf"}


def test_a_resumed_run_has_each_step_once_and_no_torn_line(tmp_path):
    log = Log(tmp_path)
    for step in range(1, 6):
        log.write(step, loss=float(step))
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    log = Log(tmp_path, after=3)
    log.write(4, loss=40.0)
    log.close()
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_lines_that_are_none_are_left_out(tmp_path):
    damaged = b'{"step": 2, "loss": 1.0\xff}\n\xff\xfe\x00\n{"step": null}\n{"step": "3"}\n[]\n{"step": 4}\n'
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n' + damaged)
    Log(tmp_path, after=4).close()
    assert read_log(tmp_path) == [{"step": 1}, {"step": 4}]


def test_tensorboard_shows_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Log(tmp_path)
    log.write(3, loss=0.125, times={"0.05": 2.0})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.125)]
    assert [(event.step, event.value) for event in events.Scalars("times/0.05")] == [(3, 2.0)]


def test_the_console_shows_rate_and_time_left_in_plain_lines(capsys):
    console = Console("train", 100, seconds=0)
    console.step(1, {"loss": torch.tensor(0.5).item()})
    console.step(50, {"loss": 0.25})
    console.step(100, {"loss": 0.25})
    first, middle, last = capsys.readouterr().err.splitlines()
    assert first == "train 1/100 · loss 0.5"
    assert middle.startswith("train 50/100 · loss 0.25 · ") and middle.endswith("left")
    assert "left" not in last
