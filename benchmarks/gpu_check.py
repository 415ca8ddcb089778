"""Every figure of clipmill that needs a GPU, in ten minutes: is it right there, and how fast?

    PYTHONPATH=. python benchmarks/gpu_check.py --out DIR [--budget 540] [--parts env correct ...] [--device cpu]

Each part is a child process with its own share of the time; each of its cases appends one line to DIR/lines.jsonl at
once. A crash, a lack of memory and the end of the time are lines too. At the end a table of under 3,000 characters is
printed and written to DIR/table.txt. Exit 1 only where a comparison failed: figures are what they are.

Needs the repository, torch, numpy, safetensors, pyarrow, PyYAML and psutil. The parts `pipeline` and `embed` want
more; benchmarks/gpu/wheels.txt lists it, and without it they say so. Without a GPU, what can be shown on a CPU runs, in
small, and the exit is 0 if it is right.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu.report import LINES, Report, write_line

# Seconds of each part, of a budget of 540.
BOXES = {
    "env": 15, "correct": 60, "conv": 40, "vae": 70, "attn": 40, "xl": 150, "loop": 60, "loader": 25, "pipeline": 40,
    "embed": 40,
}  # fmt: skip
BUDGET = sum(BOXES.values())
COMPARING = ("correct", "loop", "loader")  # a part of these that ends early has not shown that it is right
ROOT = Path(__file__).resolve().parents[1]
TABLE = 3000  # characters


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the lines and the table")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of all parts together")
    parser.add_argument("--parts", nargs="+", choices=BOXES, default=list(BOXES))
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--child", choices=BOXES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        report = Report(args.out, args.child, args.budget)
        importlib.import_module(f"gpu.{args.child}").run(report, args.device)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / LINES).write_text("")
    device = args.device or found_device()
    if device == "cpu":
        print("no GPU here: what a CPU can show runs, in small; its times say nothing of a GPU", flush=True)
    share = args.budget / sum(BOXES[part] for part in args.parts)
    for part in args.parts:
        run_part(args.out, part, BOXES[part] * share, device)
    lines = [json.loads(line) for line in (args.out / LINES).read_text().splitlines()]
    text = table(lines)
    (args.out / "table.txt").write_text(text + "\n")
    print(text)
    return int(any(is_wrong(line) for line in lines))


def found_device() -> str:
    """Asked of a child: a process that has touched the GPU keeps some of its memory."""
    asked = [sys.executable, "-c", "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[-1]


def run_part(folder: Path, part: str, seconds: float, device: str) -> None:
    began = time.monotonic()
    command = [sys.executable, __file__, "--out", str(folder), "--budget", str(seconds - 2), "--child", part]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with open(folder / f"{part}.log", "w") as log:
        child = subprocess.Popen(
            [*command, "--device", device], stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": path}
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = None
    said = (folder / f"{part}.log").read_text(errors="replace").strip().splitlines()
    line: dict[str, Any] = {"part": part, "case": "(whole)", "s": round(time.monotonic() - began, 1)}
    if code is None:
        line["failed"] = f"ended after its {seconds:.0f} s"
    elif code:
        line["failed"] = f"exit {code}: {said[-1][:300] if said else 'no word'}"
    write_line(folder, line)


def is_wrong(line: dict[str, Any]) -> bool:
    """A comparison that failed, or that ended before it could tell. A lack of memory is a figure, no mistake."""
    ended = "failed" in line and not line.get("memory") and line["part"] in COMPARING
    return line.get("ok") is False or ended


def table(lines: list[dict[str, Any]]) -> str:
    """A row for each figure and each failure; comparisons that came out right are counted in one row a part."""
    rows = []
    for part in dict.fromkeys(line["part"] for line in lines):
        own = [line for line in lines if line["part"] == part]
        right = sum(line.get("ok") is True for line in own)
        if right:
            rows.append(f"{part}: {right} comparisons right")
        for line in own:
            said = line.get("failed") or line.get("left_out") or line.get("shown")
            if said and line.get("ok") is not True:
                rows.append(f"{part} {line['case']}: {'WRONG ' if is_wrong(line) else ''}{said}")
    room = max(40, TABLE // max(1, len(rows)) - 1)
    return "\n".join(row[:room] for row in rows)[:TABLE]


if __name__ == "__main__":
    sys.exit(main())
