"""Installs the base of the project (no extras) in a fresh environment and checks that it is small and quick.

The wheel is built from what git would commit, so this also sees what a user would get from a registry.
Prints the figures as JSON; exit 1 when a limit is passed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_PACKAGES, MOST_BYTES = 60, 10**9
PACKAGES = {"curate", "stages", "models", "train"}
CARRIED = {  # files that are no Python, and what they are
    "curate/recipe/pipelines.yaml": "the default recipes",
    "stages/pretrained/shipped/tiny_clip/open_clip_model.safetensors": "a model that ships",
    "stages/pretrained/shipped/tiny_text/model.safetensors": "a model that ships",
}
HEAVY = ("av", "cv2", "deltalake", "duckdb", "numpy", "pandas", "pyarrow", "ray", "scenedetect", "torch")
HELP = f"""
import sys
import curate.cli.main
sys.argv = ["clipmill", "--help"]
try:
    curate.cli.main.main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("heavy:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="clipmill-base-") as scratch:
        wheel = build_wheel(Path(scratch))
        names = zipfile.ZipFile(wheel).namelist()
        inside = {name.split("/")[0] for name in names if ".dist-info/" not in name}
        environment = Path(scratch) / "venv"
        python = environment / "bin" / "python"
        uv = Path(sys.executable).with_name("uv")
        run(uv, "venv", "--quiet", "--python", sys.executable, environment)
        pins = ("--constraint", ROOT / "requirements.lock")
        run(uv, "pip", "install", "--quiet", "--python", python, *pins, wheel)
        listed = json.loads(run(uv, "pip", "list", "--quiet", "--format", "json", "--python", python))
        helped = subprocess.run([python, "-c", HELP], cwd=scratch, capture_output=True, text=True)
        figures = {
            "packages": len(listed),
            "megabytes": round(size_of(environment) / 1e6),
            "in_wheel": sorted(inside),
            "torch": any(package["name"] == "torch" for package in listed),
            "help_works": helped.returncode == 0 and "clipmill" in helped.stdout,
            "help_imports": helped.stderr.rpartition("heavy:")[2].split(),
        }
    print(json.dumps(figures))
    breaches = [
        (figures["packages"] > MOST_PACKAGES, f"more than {MOST_PACKAGES} packages"),
        (figures["megabytes"] * 1e6 > MOST_BYTES, f"more than {MOST_BYTES / 1e6:.0f} MB"),
        (inside != PACKAGES, f"the wheel must hold {sorted(PACKAGES)} and nothing else"),
        *((name not in names, f"the wheel lacks {name}, {what}") for name, what in CARRIED.items()),
        (figures["torch"], "torch is in the base install"),
        (not figures["help_works"], f"clipmill --help failed: {helped.stderr}"),
        (figures["help_imports"], "clipmill --help imports heavy packages, so it can't be quick"),
    ]
    wrong = [message for broken, message in breaches if broken]
    print("\n".join(f"base install: {message}" for message in wrong) or "base install: within its limits")
    return 1 if wrong else 0


def build_wheel(scratch: Path) -> Path:
    """The project's wheel, built with the setuptools of this environment from a copy of its files."""
    copy = scratch / "project"
    names = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", scratch, copy)  # fmt: skip
    return next(scratch.glob("*.whl"))


def size_of(folder: Path) -> int:
    """Bytes of the files under a folder, without links and without bytecode, which Python adds itself."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc")


def run(*command: object) -> str:
    """The command's output; what it says on stderr is shown."""
    return subprocess.run([str(part) for part in command], check=True, text=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    sys.exit(main())
