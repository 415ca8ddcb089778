"""Runs the blocks of README.md and docs/*.md as they are printed, and stops at the first one that fails.

    docs_blocks.py [--write] [--demo FOLDER] [--films FOLDER --captions CSV [--keep FOLDER]] [FILE...]
                                                            default: README.md, then every page of docs/

Everything runs in a scratch folder that holds a copy of what git would commit, where the README's `make demo` has
made demo/. HOME is another scratch folder with a few films in Videos, so that a reader's own paths work as printed.

| fence | what is done |
| sh | run by bash. `make test` is left out where CLIPMILL_TESTED is set: it has just run |
| python | run; the blocks of one page share their names, as a reader who types them in has it |
| sql | each statement is asked of demo/catalog |
| yaml | recipes are loaded, planned, and their gates checked; a stage by itself is put into a recipe first; configs of
         training are checked. STAND_INS takes the place of models on a hub, tests/caption_server.py that of a server |
| toml | parsed |
| text | not run; one that follows a sh block is what it printed, renewed by --write |

A block of python, yaml or toml whose first line is a comment with a path, such as `# mine/stage.py`, is saved there
and nothing else is done with it: the page's commands use it.

A block that can't run here says why behind its language: ```sh needs-gpu, needs-hub or needs-files. It is counted; a
yaml block of this kind is still loaded, which checks every setting. Any other fence is an error. Without the README,
`--demo FOLDER` names what `clipmill demo -o FOLDER` has made, to save the minutes of another demo.

docs/start-to-end.md runs in a folder of its own on drawn films, or on those of `--films` and `--captions`, where a
command may exit with 1 (something failed); docs_walk.py lays them out and says what has to hold at the end. --keep
names the new folder that it runs in. --write renews the page's table of seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import docs_walk  # noqa: E402

from curate.catalog.catalog import Catalog  # noqa: E402
from curate.catalog.source_columns import types_for_gates  # noqa: E402
from curate.catalog.views import connect  # noqa: E402
from curate.errors import UserError  # noqa: E402
from curate.recipe.checks import check_plan_gates, clip_columns  # noqa: E402
from curate.recipe.load import load_recipes  # noqa: E402
from curate.recipe.plan import make_plan  # noqa: E402
from models.settings.validation import ConfigError  # noqa: E402
from tests.caption_server import MODEL as CAPTION_MODEL  # noqa: E402
from tests.caption_server import CaptionServer  # noqa: E402
from train.config.training import TrainConfig  # noqa: E402
from train.config.vae import VAETrainConfig  # noqa: E402

BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w.-]+(?:/[\w.-]+)+\.(?:py|yaml|toml))\n")  # first line of a block that is saved
WALK_FILE = re.compile(r"# ([\w.-]+\.yaml)\n")  # the same on that page, whose commands need no folder
NEEDS = ("needs-gpu", "needs-hub", "needs-files")
LANGUAGES = ("sh", "python", "sql", "yaml", "toml", "text")
DRAW = """
import sys, tempfile
from pathlib import Path
from curate.demo.films import draw_films
with tempfile.TemporaryDirectory() as drawn:
    for film in draw_films(drawn, seed=7):
        if film.media == "video" and not film.flaws and not film.duplicate_of:
            (Path(sys.argv[1]) / film.name).write_bytes((Path(drawn) / film.name).read_bytes())
"""
# Models on a hub, as the docs name them, and what a recipe is planned with in their place.
STAND_INS = {
    "ViT-L-14, pretrained: laion2b_s32b_b82k": "clipmill:tiny_clip",
    "ViT-B-32, pretrained: laion2b_s34b_b79k": "clipmill:tiny_clip",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "demo/vae/model",
    "google/umt5-xxl": "clipmill:tiny_text",
    "Qwen/Qwen2.5-VL-7B-Instruct": CAPTION_MODEL,
}
SERVER = "http://localhost:8000/v1"  # as the docs name it


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    needs: str  # why it can't run here, or nothing
    text: str
    shown: str | None  # the output that the page shows of it
    heading: str = ""  # that it stands under

    @property
    def file(self) -> str | None:
        """The path that it is saved at."""
        named = (WALK_FILE if self.page == docs_walk.PAGE else FILE).match(self.text)
        return named[1] if named else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language}{' ' + self.needs if self.needs else ''})"


class Failed(Exception):
    """A block that did not do what the page says, with the reason."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--films", type=Path)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("pages", nargs="*")
    options = parser.parse_args()
    if (options.films is None) != (options.captions is None):
        parser.error("--films and --captions go together")
    for name in ("demo", "films", "captions", "keep"):
        if path := getattr(options, name):
            setattr(options, name, path.resolve())  # pages run in other folders
    pages = options.pages or ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    with tempfile.TemporaryDirectory(prefix="clipmill-docs-", ignore_cleanup_errors=True) as scratch:
        try:
            return run_pages(pages, Path(scratch), options)
        except Failed as error:
            print(error, file=sys.stderr)
            return 1


def run_pages(pages: list[str], scratch: Path, options: argparse.Namespace) -> int:
    blocks = {page: find_blocks(page) for page in pages}
    if Path(sys.prefix) == ROOT / ".venv":  # the scratch folder has a link to it: install what is left here, not there
        subprocess.run([sys.executable, ROOT / ".ci" / "setup.py"], check=True)
    project, home = scratch / "clipmill", scratch / "home"
    copy_project(project)
    (home / "Videos").mkdir(parents=True)
    if options.demo is not None:
        shutil.copytree(options.demo, project / "demo")
    subprocess.run([sys.executable, "-c", DRAW, home / "Videos"], check=True)
    os.environ |= {"HOME": str(home), "PATH": f"{project / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    os.chdir(project)
    if "README.md" not in pages and set(pages) != {docs_walk.PAGE} and options.demo is None:
        run(["clipmill", "demo"], "the demo")
    done: Counter[str] = Counter()
    for page, found in blocks.items():
        began = time.monotonic()
        if page == docs_walk.PAGE:
            given = (options.films, options.captions) if options.films else None
            folder = options.keep or scratch / "walk"
            printed = docs_walk.walk(found, run_page, folder, given, ROOT / page if options.write else None)
        else:
            printed = run_page(found)
        done.update(f"{block.language} {block.needs}".strip() for block in found)
        print(f"{page}: {len(found)} blocks in {time.monotonic() - began:.0f} s\n", flush=True)
        if options.write and printed:
            text = (ROOT / page).read_text(encoding="utf-8")
            for block, new in printed.items():
                old = f"{block.text}```\n\n```text\n"
                text = text.replace(f"{old}{block.shown}```", f"{old}{new}```")
            (ROOT / page).write_text(text, encoding="utf-8")
    print("docs: all blocks hold;", ", ".join(f"{count} {kind}" for kind, count in sorted(done.items())))
    return 0


def find_blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        language, _, needs = match[1].partition(" ")
        heading = re.findall(r"^## (.*)$", text[: match.start()], re.MULTILINE)[-1:]
        line = text.count("\n", 0, match.start()) + 1
        block = Block(page, line, language, needs, match[2], match[3], *heading)
        if language not in LANGUAGES or (needs and needs not in NEEDS):
            raise Failed(
                f"{block}: a fence names one of {', '.join(LANGUAGES)}, then at most one of {', '.join(NEEDS)}"
            )
        found.append(block)
    if page == "README.md" and not any(block.language == "sh" for block in found):
        raise Failed("README.md has no ```sh block, or its form changed: nothing was run")
    return found


def run_page(blocks: list[Block], strict: bool = True) -> dict[Block, str]:
    """Runs the blocks of a page; gives what was printed by those of which the page shows it.

    Unless `strict`, commands may exit with 1, as they do where some of the work failed.
    """
    shell = ["bash", "-euo", "pipefail", "-c"] if strict else ["bash", "-Euo", "pipefail", "-c"]
    script = "{}" if strict else "trap 'code=$?; ((code == 1)) || exit $code' ERR\n{}true"
    printed: dict[Block, str] = {}
    python = [block for block in blocks if block.language == "python" and not block.needs and not block.file]
    for block in blocks:
        if block.file:
            print(f"{block}: saved as {block.file}", flush=True)
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            check_yaml(block)
        elif block.needs:
            print(f"{block}: not run", flush=True)
        elif block.language == "python":
            if block is python[-1]:  # by now everything is there that the page's commands make
                run_python(python)
        elif block.language == "sh":
            text = block.text
            if os.environ.get("CLIPMILL_TESTED"):
                text = re.sub(r"^make test$", "echo 'make test: has run before'", text, flags=re.MULTILINE)
            print(f"{block}:\n{text}", flush=True)
            out = run([*shell, script.replace("{}", text)], block, keep=block.shown is not None)
            if block.shown is not None:
                printed[block] = out
        elif block.language == "sql":
            for statement in filter(str.strip, block.text.split(";")):
                print(f"{block}: {' '.join(statement.split())}", flush=True)
                run(["clipmill", "sql", statement, "--catalog", "demo/catalog", "-o", os.devnull], block)
    return printed


def run(command: list[str], what: object, keep: bool = False) -> str:
    """The command's output where it is kept. Failed for any exit code but 0."""
    done = subprocess.run(command, stdout=subprocess.PIPE if keep else None, text=True)
    if keep:
        print(done.stdout, flush=True)
    if done.returncode:
        raise Failed(f"{what} failed with exit code {done.returncode}")
    return done.stdout or ""


def run_python(blocks: list[Block]) -> None:
    """The blocks of a page in one process, one after the other; lines of a traceback are those of the page."""
    parts = [(f"{ROOT / block.page}", "\n" * block.line + block.text) for block in blocks]
    script = f"names = {{'__name__': 'docs'}}\nfor page, text in {parts!r}: exec(compile(text, page, 'exec'), names)"
    print(f"{', '.join(map(str, blocks))}: runs", flush=True)
    run([sys.executable, "-c", script], blocks[0].page)


def check_yaml(block: Block) -> None:
    """Recipes through the loader and the planner, configs of training through their own checks."""
    values = yaml.safe_load(block.text)
    try:
        if "kind" in values:
            (VAETrainConfig if values["kind"] == "vae" else TrainConfig).from_dict(values)
        elif "recipes" in values:
            check_recipes(block, block.text)
        else:
            stages = [{name: settings} for name, settings in values.items()]
            recipe = {"select": "SELECT * FROM clips", "stages": stages}
            check_recipes(block, yaml.safe_dump({"recipes": {"block": recipe}}))
    except (UserError, ConfigError) as error:
        raise Failed(f"{block}: {error}") from error


def check_recipes(block: Block, text: str) -> None:
    if not block.needs:
        for name, stand_in in STAND_INS.items():
            text = text.replace(name, stand_in)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file, CaptionServer() as server:
        file.write(text if block.needs else text.replace(SERVER, server.url))
        file.flush()
        for recipe in load_recipes(file.name, list(yaml.safe_load(text)["recipes"])):
            if block.needs:
                print(f"{block}: recipe {recipe.name} loaded, not planned", flush=True)
                continue
            plan = make_plan(recipe)
            known: dict[str, Any] = dict(types_for_gates({}))
            if plan.decode is None:
                with connect(Catalog.open("demo/catalog")) as sql:
                    known = clip_columns(sql)
            check_plan_gates(plan, known)
            print(f"{block}: recipe {recipe.name} planned", flush=True)


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
    (target / ".venv").symlink_to(sys.prefix)


if __name__ == "__main__":
    sys.exit(main())
