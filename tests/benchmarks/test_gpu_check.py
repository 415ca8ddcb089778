"""The GPU check: on a machine without one it runs in small, and what goes wrong in a part is a line and a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECK = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"
PARTS = ["env", "correct", "conv", "vae", "attn", "xl", "loop", "loader", "pipeline", "embed"]


def check(folder: Path, *options: str) -> tuple[int, str, list[dict[str, Any]]]:
    asked = [sys.executable, str(CHECK), "--out", str(folder), "--device", "cpu", *options]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=folder.parent)
    assert not done.stderr, done.stderr
    return (
        done.returncode,
        done.stdout,
        [json.loads(line) for line in (folder / "lines.jsonl").read_text().splitlines()],
    )


@pytest.mark.slow
def test_without_a_gpu_every_part_runs_in_small_and_is_right(tmp_path):
    code, said, lines = check(tmp_path / "out", "--budget", "2000")
    assert said.startswith("no GPU here") and len(said) < 3200
    assert said.split("\n", 1)[1] == (tmp_path / "out" / "table.txt").read_text()
    assert list(dict.fromkeys(line["part"] for line in lines)) == PARTS
    assert [line for line in lines if "failed" in line or line.get("ok") is False] == []
    assert sum("ok" in line for line in lines) >= 20
    assert code == 0


def test_a_part_that_runs_out_of_time_leaves_a_line_and_no_verdict_that_all_is_right(tmp_path):
    code, said, lines = check(tmp_path / "out", "--parts", "env", "correct", "--budget", "0.1")
    assert [(line["part"], line["case"]) for line in lines] == [("env", "(whole)"), ("correct", "(whole)")]
    assert all("ended after" in line["failed"] for line in lines)
    assert "correct (whole): WRONG ended after" in said and code == 1  # of `correct`; `env` compares nothing
    assert said.count("WRONG") == 1
