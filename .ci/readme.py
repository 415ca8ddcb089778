"""Runs every ```sh block of the README as it is printed, and stops at the first command that fails.

The commands run in a scratch folder that holds a copy of what git would commit, with this checkout's .venv,
and HOME is another scratch folder with a few films in Videos, so that a reader's own paths work as printed.
`make test` is left to the caller when CLIPMILL_TESTED is set: it has just run. With --write, a ```text block
that follows a ```sh block is replaced by what the commands printed (`make readme`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```sh\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
DRAW = """
import sys, tempfile
from pathlib import Path
from curate.demo.films import draw_films
with tempfile.TemporaryDirectory() as drawn:
    for film in draw_films(drawn, seed=7):
        if film.media == "video" and not film.flaws and not film.duplicate_of:
            (Path(sys.argv[1]) / film.name).write_bytes((Path(drawn) / film.name).read_bytes())
"""


def main() -> int:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(readme))
    shown: dict[str, str] = {}  # what the README shows of an output: what was printed now
    if not blocks:
        print("README.md has no ```sh block, or its form changed: nothing was run", file=sys.stderr)
        return 1
    # The scratch folder has a link to .venv: were there anything left to install, it would be installed from there.
    subprocess.run([sys.executable, ROOT / ".ci" / "setup.py"], check=True)
    with tempfile.TemporaryDirectory(prefix="clipmill-readme-", ignore_cleanup_errors=True) as scratch:
        project, home = Path(scratch) / "clipmill", Path(scratch) / "home"
        copy_project(project)
        (home / "Videos").mkdir(parents=True)
        subprocess.run([sys.executable, "-c", DRAW, home / "Videos"], check=True)
        for number, found in enumerate(blocks, 1):
            block = found[1]
            if os.environ.get("CLIPMILL_TESTED"):
                block = re.sub(r"^make test$", "echo 'make test: has run before'", block, flags=re.MULTILINE)
            print(f"README block {number} of {len(blocks)}:\n{block}", flush=True)
            began = time.monotonic()
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block], cwd=project, env=os.environ | {"HOME": str(home)},
                stdout=subprocess.PIPE if found[2] else None, text=True,
            )  # fmt: skip
            if found[2]:
                print(done.stdout, flush=True)
                shown[found[2]] = done.stdout
            if done.returncode:
                print(f"README block {number} failed with exit code {done.returncode}", file=sys.stderr)
                return 1
            print(f"README block {number}: done in {time.monotonic() - began:.0f} s\n", flush=True)
    if "--write" in sys.argv[1:]:
        for old, new in shown.items():
            readme = readme.replace(f"```text\n{old}```", f"```text\n{new}```")
        (ROOT / "README.md").write_text(readme, encoding="utf-8")
    print(f"README: all {len(blocks)} blocks run as printed")
    return 0


def copy_project(target: Path) -> None:
    """The files that git would commit, and a link to this checkout's environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    (target / ".venv").symlink_to(ROOT / ".venv")


if __name__ == "__main__":
    sys.exit(main())
