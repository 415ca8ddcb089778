"""Rules that ruff does not know, over every file that git would commit. Prints each breach; exit 1 on any."""

from __future__ import annotations

import ast
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from import_rules import check_circles, check_directions, check_private_names

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("curate", "stages", "models", "train")
LARGEST = 1 << 20  # bytes of a committed file
LONGEST = 400  # lines of a Python file: about 300 is where a second purpose usually hides
# At the top of a package: folders, and Python files beside __init__.py.
MOST_AT_TOP = {"curate": (16, 4), "stages": (12, 4)}
# Bracketed letters keep these patterns from finding themselves.
MACHINE_PATH = re.compile(r"/wor[k]/(main|shared|steering|\.)|/op[t]/(wheels|pypi)|/roo[t]/|/hom[e]/\w+/|/far[m]/")
# In a page: a path of the project between backticks, and the target of a link inside the project.
NAMED_PATH = re.compile(r"`((?:curate|stages|models|train|tests|benchmarks|docs|infra|\.ci)/[\w./-]*)`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)")
REGISTRY = re.compile(r"pyp[i]\.org|python[h]osted|registry\.npm[j]s|deb\.deb[i]an|-index-url[ =]\S*:/[/]")


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    texts = {
        name: (ROOT / name).read_bytes().decode("utf-8", "replace")
        for name in sorted(filter(None, listed))
        if (ROOT / name).is_file()
    }
    trees = {name: ast.parse(text, name) for name, text in texts.items() if name.endswith(".py")}
    breaches = [*check(texts, trees)]
    print("\n".join(breaches) or f"house rules: {len(texts)} files, none broken")
    return 1 if breaches else 0


def check(texts: Mapping[str, str], trees: Mapping[str, ast.Module]) -> Iterator[str]:
    """The breaches of all files, each a line "file:line: what"."""
    for name, text in texts.items():
        yield from check_text(name, text)
    for name, tree in trees.items():
        if (lines := texts[name].count("\n")) > LONGEST:
            yield f"{name}: {lines} lines; no Python file may be longer than {LONGEST}"
        yield from check_directions(name, tree)
        yield from check_private_names(name, tree)
    for name, text in texts.items():
        if name.endswith(".md"):
            yield from check_page(name, text, texts)
    packaged = {name: tree for name, tree in trees.items() if name.split("/")[0] in PACKAGES}
    for name, tree in packaged.items():
        if not (ast.get_docstring(tree) or "").partition("\n")[0].strip():
            yield f"{name}:1: a first docstring line must say what the file is for"
    yield from check_folders(packaged)
    yield from check_circles(packaged)


def check_text(name: str, text: str) -> Iterator[str]:
    if (ROOT / name).stat().st_size > LARGEST:
        yield f"{name}: {(ROOT / name).stat().st_size / 2**20:.1f} MiB; no committed file may be larger than 1 MiB"
    for number, line in enumerate(text.splitlines(), 1):
        if found := MACHINE_PATH.search(line):
            yield f"{name}:{number}: {found[0]} is a path of one machine"
        if found := REGISTRY.search(line):
            yield f"{name}:{number}: {found[0]} is the address of a package registry"


def check_page(name: str, text: str, files: Mapping[str, str]) -> Iterator[str]:
    """Files and folders that a page names are there."""
    there = {*files, *(str(folder) for file in files for folder in PurePosixPath(file).parents)}
    for number, line in enumerate(text.splitlines(), 1):
        linked = [posixpath.normpath(f"{posixpath.dirname(name)}/{link}".lstrip("/")) for link in LINK.findall(line)]
        for path in [found.rstrip("/") for found in NAMED_PATH.findall(line)] + linked:
            if path not in there:
                yield f"{name}:{number}: {path} is not there"


def check_folders(packaged: Mapping[str, ast.Module]) -> Iterator[str]:
    """Every folder of the packages is a package itself, and the top of a package can be taken in at a glance."""
    for folder in sorted({str(PurePosixPath(name).parent) for name in packaged}):
        if f"{folder}/__init__.py" not in packaged:
            yield f"{folder}: needs an __init__.py whose docstring says what the folder holds"
    for package, (most_folders, most_files) in MOST_AT_TOP.items():
        parts = [name.split("/") for name in packaged if name.startswith(f"{package}/")]
        folders = {path[1] for path in parts if len(path) > 2}
        files = sorted(path[1] for path in parts if len(path) == 2 and path[1] != "__init__.py")
        if len(folders) > most_folders:
            yield f"{package}: {len(folders)} folders at its top; at most {most_folders}"
        if len(files) > most_files:
            yield f"{package}: {len(files)} files beside __init__.py ({', '.join(files)}); at most {most_files}"


if __name__ == "__main__":
    sys.exit(main())
