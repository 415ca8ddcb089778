"""Rules about imports: which way packages depend on each other, circles between folders, private names of dependencies.

Everything is read from the syntax tree, so imports inside functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping

# What a package may import besides the standard library. None: anything but the packages named in FORBIDDEN.
ALLOWED = {
    "models": {"models", "torch", "numpy", "safetensors"},
    "train": {"train", "models", "torch", "numpy", "pyarrow", "safetensors"},
}
FORBIDDEN = {"stages": {"curate", "train"}, "curate": {"tests", "benchmarks"}}
# Private names that torch has no public one for, and where they may be used.
NO_PUBLIC_NAME = {
    "torch._dynamo": ("train/loop/network.py",),  # config.optimize_ddp, which torch's notes on DDP name
    "torch._subclasses.fake_tensor": ("tests/",),  # tensors on a GPU that is not there
    "torch.utils._python_dispatch": ("tests/",),
    "torch._dynamo.backends.common": ("tests/",),  # the graphs that Inductor would get there
    "torch._inductor.decomposition": ("tests/",),
}
OURS = {"curate", "stages", "models", "train", "tests", "benchmarks"}


def imports(tree: ast.Module) -> Iterator[tuple[int, str, str | None]]:
    """(line, module, name or None) of every absolute import: `import a.b` has no name, `from a import b` has one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)


def check_directions(name: str, tree: ast.Module) -> Iterator[str]:
    """Dependencies point one way: curate -> stages -> models, and train -> models."""
    package = name.split("/")[0]
    allowed, forbidden = ALLOWED.get(package), FORBIDDEN.get(package, set())
    for line, module in sorted({(line, module) for line, module, _ in imports(tree)}):
        top = module.split(".")[0]
        outside = allowed is not None and top not in allowed and top not in sys.stdlib_module_names
        if outside or top in forbidden:
            yield f"{name}:{line}: {package} may not import {module}"


def check_private_names(name: str, tree: ast.Module) -> Iterator[str]:
    """A dependency's `_name` may change with any release: none is imported, and none is read from its modules."""
    modules: dict[str, str] = {}  # name in this file -> the module or object of a dependency that it stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full = alias.name if alias.asname else alias.name.split(".")[0]
                modules[alias.asname or full] = full
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    modules = {short: full for short, full in modules.items() if is_dependency(full)}
    for line, module, imported in imports(tree):
        full = f"{module}.{imported}" if imported else module
        if is_dependency(module) and any(map(is_private, full.split("."))) and not has_no_public_name(full, name):
            yield f"{name}:{line}: {full} is a private name of a dependency"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            parts, base = [node.attr], node.value
            while isinstance(base, ast.Attribute):
                parts.append(base.attr)
                base = base.value
            if isinstance(base, ast.Name) and base.id in modules:
                full = ".".join([modules[base.id], *reversed(parts)])
                if has_no_public_name(full, name):
                    continue
                yield f"{name}:{node.lineno}: {full} is a private name of a dependency"


def is_dependency(module: str) -> bool:
    top = module.split(".")[0]
    return top not in OURS and top not in sys.stdlib_module_names


def has_no_public_name(full: str, file: str) -> bool:
    return any(
        f"{full}.".startswith(f"{private}.") and file.startswith(places) for private, places in NO_PUBLIC_NAME.items()
    )


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def check_circles(trees: Mapping[str, ast.Module]) -> Iterator[str]:
    """No circles between the folders of the packages; a loose file beside the folders counts as one of them.

    `trees` holds the files of the packages by name. A circle is told with one import for each of its steps.
    """
    files = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in trees}
    example: dict[str, dict[str, str]] = defaultdict(dict)  # room -> room it imports -> one import that does so
    for name, tree in trees.items():
        for line, module, imported in imports(tree):
            target = files.get(f"{module}.{imported}") or files.get(module)
            if target is not None and room(target) != room(name):
                example[room(name)].setdefault(room(target), f"{name}:{line} imports {module}")
    for circle in circles({start: list(targets) for start, targets in example.items()}):
        steps = zip(circle, [*circle[1:], circle[0]], strict=True)
        yield f"circle {' -> '.join([*circle, circle[0]])}: {'; '.join(example[a][b] for a, b in steps)}"


def room(name: str) -> str:
    """The folder below the package that a file lies in; the file itself where it lies beside the folders."""
    return "/".join(name.split("/")[:2])


def circles(graph: Mapping[str, list[str]]) -> list[list[str]]:
    """The shortest circle through each node that lies on one, each circle once."""
    found: dict[frozenset[str], list[str]] = {}
    for start in sorted(graph):
        paths, seen = [[start]], {start}
        for path in paths:  # breadth first: paths grows while it is walked
            targets = graph.get(path[-1], [])
            if start in targets:
                found.setdefault(frozenset(path), path)
                break
            paths += [[*path, target] for target in targets if target not in seen]
            seen.update(targets)
    return list(found.values())
