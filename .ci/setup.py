"""Builds .venv from requirements.lock, every file checked by hash. Does nothing when nothing changed.

Runs on a bare Python >= 3.11: venv and pip first bring uv (pinned by hash), and uv brings the rest, much
faster. Where uv can't reach the packages (it does not read pip's configuration), pip brings them.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
UV = PYTHON.with_name("uv.exe" if os.name == "nt" else "uv")
STAMP = VENV / "setup-stamp"
LOCK, BOOTSTRAP = ROOT / "requirements.lock", ROOT / ".ci" / "bootstrap.lock"


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 (any Python may run this file)
        print(f"clipmill needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. "
              "Name another one: make PYTHON=python3.12 setup", file=sys.stderr)  # fmt: skip
        return 2
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted and PYTHON.exists():
        return 0
    print(f"Building {VENV.name} with Python {sys.version.split()[0]}; the first time takes some minutes.")
    STAMP.unlink(missing_ok=True)
    try:
        build()
    except subprocess.CalledProcessError as error:
        print(f"make setup stopped: this command failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    STAMP.write_text(wanted)
    return 0


def fingerprint() -> str:
    """Changes when the environment has to be built again: other pins, another Python, or a moved folder."""
    digest = hashlib.sha256()
    for path in (LOCK, BOOTSTRAP, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return f"{digest.hexdigest()} Python {sys.version_info[:2]} at {VENV.resolve()}\n"


def build() -> None:
    if not environment_fits():
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV])
        if made.returncode:
            print(
                "Is Python's venv module there? On Debian and Ubuntu: apt install python3-venv",
                file=sys.stderr,
            )
            made.check_returncode()
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", BOOTSTRAP], check=True)
    # Compiled now, as pip does: else each of Ray's workers compiles what it imports, at every start.
    uv = [UV, "pip", "install", "--compile-bytecode", "--python", PYTHON, "--require-hashes", "-r", LOCK]
    if not sys.stderr.isatty():
        uv.append("--quiet")
    if subprocess.run(uv, env=uv_environment()).returncode:
        print("uv could not install the packages; pip tries with its own configuration (slower).")
        subprocess.run([*pip, "--require-hashes", "-r", LOCK], check=True)
    # setuptools is in the lock, so building needs no download.
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)


def environment_fits() -> bool:
    """Whether .venv is there, works, has this Python's version and was not copied from another folder."""
    if not PYTHON.exists():
        return False
    question = "import sys, pip; print(sys.version_info[:2], sys.prefix)"
    answer = subprocess.run([PYTHON, "-c", question], capture_output=True, text=True)
    return answer.stdout.strip() == f"{sys.version_info[:2]} {VENV}"


def uv_environment() -> dict[str, str]:
    """The user's pip settings that have a twin in uv, unless uv has its own."""
    environment = dict(os.environ)
    environment.setdefault("UV_HTTP_TIMEOUT", "300")
    settings = pip_settings()
    for name, twins in (("index-url", ("UV_DEFAULT_INDEX", "UV_INDEX_URL")), ("cert", ("SSL_CERT_FILE",))):
        if name in settings and not any(twin in environment for twin in twins):
            environment[twins[0]] = settings[name]
    return environment


def pip_settings() -> dict[str, str]:
    """pip's configuration by plain name: `install.` beats `global.`, the environment beats both."""
    answer = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True)
    found: dict[str, str] = {}
    for scope in ("global.", "install.", ":env:."):
        for line in answer.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(scope):
                found[name.removeprefix(scope)] = ast.literal_eval(value)
    return found


if __name__ == "__main__":
    sys.exit(main())
