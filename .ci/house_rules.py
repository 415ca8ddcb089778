"""Rules that ruff does not know, over every file that git would commit. Prints each breach; exit 1 on any."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 1 << 20  # bytes of a committed file
LONGEST = 400  # lines of a Python file: about 300 is where a second purpose usually hides
# Bracketed letters keep these patterns from finding themselves.
MACHINE_PATH = re.compile(r"/wor[k]/(main|shared|steering|\.)|/op[t]/(wheels|pypi)|/roo[t]/|/hom[e]/\w+/|/far[m]/")
REGISTRY = re.compile(r"pyp[i]\.org|python[h]osted|registry\.npm[j]s|deb\.deb[i]an|-index-url[ =]\S*:/[/]")
# What a package may import besides the standard library. None: anything but the packages named in FORBIDDEN.
ALLOWED = {
    "models": {"models", "torch", "numpy", "safetensors"},
    "train": {"train", "models", "torch", "numpy", "pyarrow", "safetensors"},
}
FORBIDDEN = {"stages": {"curate", "train"}, "curate": {"tests", "benchmarks"}}


def main() -> int:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    breaches = [breach for name in sorted(filter(None, names)) if (ROOT / name).is_file() for breach in check(name)]
    print("\n".join(breaches) or f"house rules: {len(names) - 1} files, none broken")
    return 1 if breaches else 0


def check(name: str) -> Iterator[str]:
    """The breaches of one file, each a line "file:line: what"."""
    data = (ROOT / name).read_bytes()
    if len(data) > LARGEST:
        yield f"{name}: {len(data) / 2**20:.1f} MiB; no committed file may be larger than 1 MiB"
    text = data.decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        if found := MACHINE_PATH.search(line):
            yield f"{name}:{number}: {found[0]} is a path of one machine"
        if found := REGISTRY.search(line):
            yield f"{name}:{number}: {found[0]} is the address of a package registry"
    if name.endswith(".py"):
        if (lines := text.count("\n")) > LONGEST:
            yield f"{name}: {lines} lines; no Python file may be longer than {LONGEST}"
        yield from check_imports(name, ast.parse(text, name))


def check_imports(name: str, tree: ast.Module) -> Iterator[str]:
    """Dependencies point one way (curate -> stages -> models, train -> models), inside functions too."""
    package = name.split("/")[0]
    allowed, forbidden = ALLOWED.get(package), FORBIDDEN.get(package, set())
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        for module in modules:
            top = module.split(".")[0]
            outside = allowed is not None and top not in allowed and top not in sys.stdlib_module_names
            if outside or top in forbidden:
                yield f"{name}:{node.lineno}: {package} may not import {module}"


if __name__ == "__main__":
    sys.exit(main())
