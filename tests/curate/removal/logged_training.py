"""`clipmill train` that notes the clips of every batch, in this process or in those that torchrun starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from curate.cli.main import main as clipmill
from train.devices.parallel import exit_process
from train.loop.training import Training

STEPS = "steps"  # in the environment: where the ranks note their clips


@contextmanager
def noting(steps: Path) -> Iterator[None]:
    """Inside, this rank notes step and clips of each step that was made."""
    made, path = Training.train_step, steps / f"{os.environ.get('RANK', 0)}-{uuid.uuid4().hex}.jsonl"

    def noted(self, prepared):
        found = made(self, prepared)
        with path.open("a") as file:
            file.write(json.dumps([self.step + 1, prepared.batch.clip_ids]) + "\n")
        return found

    Training.train_step = noted
    try:
        yield
    finally:
        Training.train_step = made


def train(arguments: list[str], steps: Path, ranks: int = 1) -> None:
    """In this process, or in one for each rank."""
    steps.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    if ranks == 1:
        with noting(steps):
            assert clipmill(arguments) == 0
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run(
        [*command, "-m", "tests.curate.removal.logged_training", *arguments],
        env={**os.environ, STEPS: str(steps)}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def seen(steps: Path, until: int) -> Counter[str]:
    """How often each clip was in a batch of the first `until` steps. No step was made twice."""
    lines = [json.loads(line) for path in steps.iterdir() for line in path.read_text().splitlines()]
    return Counter(clip for step, clips in lines for clip in clips if step <= until)


def main() -> None:
    """What torchrun starts: trains by the arguments of the command line."""
    torch.set_num_threads(1)
    with noting(Path(os.environ[STEPS])):
        code = clipmill(sys.argv[1:])
    exit_process(code)


if __name__ == "__main__":
    main()
